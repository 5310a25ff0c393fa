"""Publishing on a real server: what readers see, and what two publishers do to each other."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.domain.errors import (
    ArtifactNotFoundError,
    ConfigurationError,
    DigestMismatchError,
    ReleaseConflictError,
    ReleaseError,
    StorageError,
)
from tasks.domain.release import Manifest, Published
from tasks.settings import LocalSettings
from tasks.storage.keys import signing_key
from tasks.storage.publishing import latest, publish, quarantine, read_release
from tasks.storage.s3 import S3Store, open_store
from tasks.storage.signing import signed_digests
from tests.support.publisher import manifest_maker, seal_for, write_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.settings import StoreSettings
    from tasks.storage.sealing import Seal

CONTENTS = {
    "onnx/model.onnx": b"onnx",
    "tf/saved_model.pb": b"graph",
    "tf/variables/variables.index": b"",
    "parity/onnx.json": b"{}",
    "golden/inputs/random.npz": b"inputs",
}


@pytest.fixture
def store(either_store: StoreSettings) -> S3Store:
    return open_store(either_store)


@pytest.fixture
def model() -> str:
    return f"model-{os.urandom(4).hex()}"


@pytest.fixture
def publish_it(store: S3Store, model: str, tmp_path: Path) -> Callable[..., Published]:
    """Lend a function that publishes ``CONTENTS``, or others, in an owner's name."""

    def go(owner: str, contents: dict[str, bytes] = CONTENTS, **options: Any) -> Published:
        files = write_files(tmp_path / owner / os.urandom(4).hex(), contents)
        return publish(store, model, files, manifest_maker(model), owner=owner, **options)

    return go


def require_whole(store: S3Store, manifest: Manifest, contents: dict[str, bytes]) -> None:
    """Hold every file that the manifest names against what was published."""
    for file in manifest.files:
        content = store.read(f"{manifest.model}/{manifest.version}/{file.path}").content
        assert content == contents[file.path]
        assert len(content) == file.size_bytes
    assert {file.path for file in manifest.files} == set(contents)


def test_a_release_lies_in_the_bucket_as_people_expect(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    published = publish_it("run")

    keys = {key.removeprefix(f"{model}/") for key in store.keys(f"{model}/")}
    assert keys == {f"1/{path}" for path in CONTENTS} | {
        "1/.claim.json",
        "1/.manifest.json",
        "1/manifest.json",
        "aliases/latest.json",
    }
    assert (published.version, published.latest) == (1, True)
    assert published.size_bytes == sum(map(len, CONTENTS.values()))
    assert json.loads(store.read(published.manifest.key).content)["model"] == model
    store.check(published.manifest)


def test_who_reads_latest_finds_every_file_it_names(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    assert latest(store, model) is None
    publish_it("one")
    publish_it("two", {"onnx/model.onnx": b"better"})

    manifest = latest(store, model)

    assert manifest is not None
    assert manifest.version == 2
    require_whole(store, manifest, {"onnx/model.onnx": b"better"})
    require_whole(store, read_release(store, model, 1), CONTENTS)


def test_a_version_that_was_never_published_is_not_found(store: S3Store, model: str) -> None:
    with pytest.raises(ArtifactNotFoundError, match=f"{model}/7/manifest.json"):
        read_release(store, model, 7)


def test_the_same_owner_publishes_once(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    first = publish_it("run")

    again = publish_it("run", {"onnx/model.onnx": b"trained anew"})

    assert again == first
    require_whole(store, read_release(store, model, 1), CONTENTS)


def test_a_retry_that_brings_other_bytes_takes_a_new_number(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    def die(_share: float, text: str) -> None:
        if text.startswith("read back"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_it("run", on_progress=die)
    other = CONTENTS | {"onnx/model.onnx": b"trained anew"}

    published = publish_it("run", other)

    assert published.version == 2
    require_whole(store, read_release(store, model, 2), other)
    with pytest.raises(ArtifactNotFoundError):
        read_release(store, model, 1)


def test_eight_at_once_get_eight_numbers_and_latest_is_the_highest(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    contents = {f"run{n}": {"onnx/model.onnx": f"model {n}".encode()} for n in range(8)}

    with ThreadPoolExecutor(8) as pool:
        all_of_them = list(pool.map(publish_it, contents, contents.values()))

    assert sorted(each.version for each in all_of_them) == list(range(1, 9))
    manifest = latest(store, model)
    assert manifest is not None
    assert manifest.version == 8
    for each, content in zip(all_of_them, contents.values(), strict=True):
        require_whole(store, read_release(store, model, each.version), content)


def test_of_two_that_want_one_version_exactly_one_gets_it(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    contents = {"one": {"onnx/model.onnx": b"one"}, "two": {"onnx/model.onnx": b"two"}}
    together = threading.Barrier(2)

    def go(owner: str) -> Published | ReleaseError:
        together.wait()
        try:
            return publish_it(owner, contents[owner], version=3)
        except ReleaseError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(contents, pool.map(go, contents), strict=True))

    won = [owner for owner, answer in answers.items() if isinstance(answer, Published)]
    lost = [answer for answer in answers.values() if isinstance(answer, ReleaseError)]
    assert len(won) == 1
    assert [type(error) for error in lost] == [ReleaseConflictError]
    assert f"belongs to another run ({won[0]})" in str(lost[0])
    require_whole(store, read_release(store, model, 3), contents[won[0]])


def test_a_version_of_unknown_origin_is_not_taken_over(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    store.create(f"{model}/5/manifest.json", b"{}")

    with pytest.raises(ReleaseConflictError, match=r"another run \(unknown\)"):
        publish_it("run", version=5)

    assert store.read(f"{model}/5/manifest.json").content == b"{}"


def test_latest_never_moves_backwards(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    publish_it("new", version=7)

    old = publish_it("old", version=2)

    manifest = latest(store, model)
    assert manifest is not None
    assert (old.latest, manifest.version) == (False, 7)


def test_a_manifest_that_was_tampered_with_is_not_believed(
    store: S3Store, publish_it: Callable[..., Published], model: str
) -> None:
    manifest = publish_it("run").manifest
    content = store.read(manifest.key).content.replace(b'"seeded": false', b'"seeded": true')
    store.client.put_object(Bucket=store.bucket, Key=manifest.key, Body=content)

    with pytest.raises(DigestMismatchError, match=r"manifest\.json: content changed"):
        latest(store, model)


def test_a_manifest_that_is_not_one_says_which_field(store: S3Store, model: str) -> None:
    store.create(f"{model}/1/manifest.json", b'{"model": 3}')

    with pytest.raises(StorageError, match=r"manifest.json: cannot be read .*a fault in"):
        read_release(store, model, 1)


def test_a_file_damaged_in_the_store_is_never_released(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    key = f"{model}/1/onnx/model.onnx"

    def rot(_share: float, text: str) -> None:
        if text == "uploaded tf/saved_model.pb":
            store.client.put_object(Bucket=store.bucket, Key=key, Body=b"rott")

    with pytest.raises(DigestMismatchError, match=r"onnx/model\.onnx: content changed"):
        publish_it("run", on_progress=rot)

    assert latest(store, model) is None


def die_after(text: str) -> Callable[[float, str], None]:
    def report(_share: float, said: str) -> None:
        if said.startswith(text):
            raise KeyboardInterrupt

    return report


def seal_with(model: str, key: Path | None) -> Seal:
    made = signing_key(LocalSettings(signing_key=key)) if key else None
    return replace(seal_for(model), key=made)


@pytest.fixture
def publish_sealed(store: S3Store, model: str, tmp_path: Path) -> Callable[..., Published]:
    """Lend a function that publishes one file, sealed, always as the same owner."""

    def go(key: Path | None, contents: dict[str, bytes] | None = None, **more: Any) -> Published:
        seal, folder = seal_with(model, key), tmp_path / os.urandom(4).hex()
        files = write_files(folder, contents or {"onnx/model.onnx": b"onnx"})
        manifest_for = manifest_maker(model, seal.signing)
        return publish(store, model, files, manifest_for, owner="run", seal=seal, **more)

    return go


def test_a_retry_publishes_the_manifest_that_was_settled_and_signed_times_and_all(
    store: S3Store, model: str, publish_sealed: Callable[..., Published], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        publish_sealed(tmp_path / "key.pem", on_progress=die_after("signed"))
    settled = store.read(f"{model}/1/.manifest.json").content
    signature = store.read(f"{model}/1/model.sig").content

    published = publish_sealed(tmp_path / "key.pem")

    assert published.version == 1
    assert store.read(published.manifest.key).content == settled
    assert store.read(f"{model}/1/model.sig").content == signature


@pytest.mark.parametrize("other", ["other.pem", None], ids=["another-key", "signing-off"])
@pytest.mark.parametrize("step", ["settled", "signed"])
def test_a_retry_with_another_key_takes_a_new_number(
    store: S3Store,
    model: str,
    publish_sealed: Callable[..., Published],
    tmp_path: Path,
    step: str,
    other: str | None,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        publish_sealed(tmp_path / "key.pem", on_progress=die_after(step))

    published = publish_sealed(tmp_path / other if other else None)

    assert published.version == 2
    with pytest.raises(ArtifactNotFoundError):
        read_release(store, model, 1)


def test_a_retry_with_more_files_takes_a_new_number(
    model: str, store: S3Store, publish_sealed: Callable[..., Published], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        publish_sealed(tmp_path / "key.pem", on_progress=die_after("wrote provenance.json"))

    more = {"onnx/model.onnx": b"onnx", "tf/saved_model.pb": b"graph"}
    published = publish_sealed(tmp_path / "key.pem", more)

    assert published.version == 2
    named = [file.path for file in read_release(store, model, 2).files]
    assert named == ["onnx/model.onnx", "tf/saved_model.pb", "provenance.json"]


@pytest.mark.parametrize("content", [b"{}", b"", b"another signature"])
def test_a_release_is_never_committed_beside_a_signature_of_something_else(
    store: S3Store,
    model: str,
    publish_sealed: Callable[..., Published],
    tmp_path: Path,
    content: bytes,
) -> None:
    def meddle(_share: float, text: str) -> None:
        if text == "settled the manifest":
            store.create(f"{model}/7/model.sig", content)

    with pytest.raises(DigestMismatchError, match=r"7/model\.sig: is of another release"):
        publish_sealed(tmp_path / "key.pem", version=7, on_progress=meddle)

    with pytest.raises(ArtifactNotFoundError):
        read_release(store, model, 7)


def test_two_tries_of_one_owner_at_once_publish_one_release_whose_signature_holds(
    store: S3Store, model: str, publish_sealed: Callable[..., Published], tmp_path: Path
) -> None:
    key = signing_key(LocalSettings(signing_key=tmp_path / "key.pem"))
    assert key is not None
    together = threading.Barrier(2)

    def go(_number: int) -> Published:
        together.wait()
        return publish_sealed(tmp_path / "key.pem", version=1)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(go, range(2))

    assert one.manifest == two.manifest
    signed = signed_digests(store.read(f"{model}/1/model.sig").content, key.public_pem, "x")
    assert signed["manifest.json"] == one.manifest.sha256


def test_a_manifest_that_names_another_key_than_the_seals_is_refused(
    store: S3Store, model: str, tmp_path: Path
) -> None:
    files = write_files(tmp_path, {"onnx/model.onnx": b"onnx"})
    seal = seal_with(model, tmp_path / "key.pem")

    with pytest.raises(StorageError, match="does not name this release's files and key"):
        publish(store, model, files, manifest_maker(model), owner="run", seal=seal)

    assert latest(store, model) is None


@pytest.mark.parametrize("name", ["keys", "work", "quarantine"])
def test_a_folder_of_the_bucket_with_a_purpose_is_no_models_name(
    store: S3Store, tmp_path: Path, name: str
) -> None:
    files = write_files(tmp_path, {"onnx/model.onnx": b"onnx"})

    with pytest.raises(ConfigurationError, match=f"{name}: is a folder of the bucket"):
        publish(store, name, files, manifest_maker(name), owner="run")


def test_progress_rises_to_one(publish_it: Callable[..., Published]) -> None:
    heard: list[tuple[float, str]] = []

    publish_it("run", on_progress=lambda share, text: heard.append((share, text)))

    shares = [share for share, _ in heard]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert heard[-1][1] == "published version 1"


@pytest.mark.parametrize(
    "path",
    [
        "/onnx/model.onnx",
        "onnx/../../other",
        "onnx//x",
        "manifest.json",
        ".claim.json",
        "model.sig",
        "tf",
    ],
)
def test_a_path_that_leaves_the_release_or_hides_in_it_is_refused_before_anything_is_written(
    store: S3Store, model: str, tmp_path: Path, path: str
) -> None:
    files = write_files(tmp_path, {"tf/saved_model.pb": b"", "model": b""})
    files[path] = files.pop("model")

    with pytest.raises(ConfigurationError, match="cannot publish a file as"):
        publish(store, model, files, manifest_maker(model), owner="run")

    assert list(store.keys(f"{model}/")) == []


def test_reports_of_a_failed_run_are_kept_apart_and_latest_stays(
    store: S3Store, model: str, tmp_path: Path, publish_it: Callable[..., Published]
) -> None:
    publish_it("good")
    files = write_files(tmp_path / "reports", {"onnx.json": b"{}", "report.html": b"<p>"})

    first = quarantine(store, model, "bad-run", files)
    files["onnx.json"].write_bytes(b"[]")
    second = quarantine(store, model, "bad-run", files)

    assert first == f"quarantine/{model}/bad-run/"
    assert second == f"quarantine/{model}/bad-run-2/"
    assert store.read(f"{first}onnx.json").content == b"{}"
    assert store.read(f"{second}onnx.json").content == b"[]"
    manifest = latest(store, model)
    assert manifest is not None
    assert manifest.version == 1


def test_a_page_that_names_its_number_is_a_file_of_the_release(
    store: S3Store, model: str, publish_it: Callable[..., Published], tmp_path: Path
) -> None:
    def pages_for(number: int) -> dict[str, Path]:
        return write_files(tmp_path / str(number), {"README.md": f"version {number}".encode()})

    publish_it("one", pages_for=pages_for)
    publish_it("two", pages_for=pages_for)

    for number in (1, 2):
        page = f"version {number}".encode()
        require_whole(store, read_release(store, model, number), CONTENTS | {"README.md": page})


def test_a_page_cannot_take_the_manifests_place(
    store: S3Store, model: str, publish_it: Callable[..., Published], tmp_path: Path
) -> None:
    pages = write_files(tmp_path, {"manifest.json": b"{}"})

    with pytest.raises(ConfigurationError, match=r"cannot publish a file as 'manifest\.json'"):
        publish_it("run", pages_for=lambda _number: pages)

    assert latest(store, model) is None
