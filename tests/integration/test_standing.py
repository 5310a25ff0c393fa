"""Is a release up to date? Asked on a real server: no false hit, and the reason in words."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tasks.domain.errors import StorageError, UnreadableDocumentError
from tasks.domain.fingerprint import Fingerprint
from tasks.storage.publishing import latest, publish, quarantine
from tasks.storage.s3 import S3Store, open_store
from tasks.storage.standing import standing
from tests.support.publisher import FINGERPRINT, manifest_maker, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deployments.s3_server import S3Server
    from tasks.domain.release import Published

MEGABYTE = 1024 * 1024
CONTENTS = {
    "onnx/model.onnx": b"onnx",
    "onnx/model.onnx.data": os.urandom(9 * MEGABYTE),  # goes up in two parts
    "tf/variables/variables.index": b"",
    "parity/onnx.json": b"{}",
}
OTHER = Fingerprint.of({"recipe.opset": "20"})


@pytest.fixture
def store(s3_server: S3Server) -> S3Store:
    return open_store(s3_server.settings)


@pytest.fixture
def model() -> str:
    return f"model-{os.urandom(4).hex()}"


@pytest.fixture
def publish_it(store: S3Store, model: str, tmp_path: Path) -> Callable[..., Published]:
    def go(fingerprint: Fingerprint = FINGERPRINT, **options: Any) -> Published:
        owner = os.urandom(4).hex()
        files = write_files(tmp_path / owner, CONTENTS)
        maker = manifest_maker(model, fingerprint=fingerprint)
        return publish(store, model, files, maker, owner=owner, **options)

    return go


@pytest.fixture
def requests(store: S3Store) -> Iterator[list[str]]:
    """Return the list of what is asked of the store from now on."""
    asked: list[str] = []

    def note(**event: Any) -> None:
        asked.append(event["model"].name)

    store.client.meta.events.register("before-call.s3", note)
    yield asked
    store.client.meta.events.unregister("before-call.s3", note)


def overwrite(store: S3Store, key: str, content: bytes) -> None:
    store.client.put_object(Bucket=store.bucket, Key=key, Body=content)


def test_nothing_is_up_to_date_where_nothing_is_released(store: S3Store, model: str) -> None:
    found = standing(store, model, FINGERPRINT)

    assert (found.version, found.published, found.changes) == (None, None, ())
    assert found.summary() == "nothing is released yet"


def test_an_unchanged_release_is_up_to_date_after_three_requests_that_read_no_file(
    store: S3Store, model: str, publish_it: Callable[..., Published], requests: list[str]
) -> None:
    published = publish_it()
    requests.clear()

    found = standing(store, model, FINGERPRINT)

    assert requests == ["GetObject", "GetObject", "ListObjectsV2"]
    assert found.published == published
    assert found.summary() == "version 1 is up to date (4 files checked)"


def test_another_fingerprint_is_not_up_to_date_and_says_what_changed(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    publish_it()

    found = standing(store, model, OTHER)

    assert found.published is None
    assert (found.version, found.changes) == (1, ("recipe.opset 17 -> 20",))
    assert found.summary() == "since version 1: recipe.opset 17 -> 20"


def test_it_is_the_latest_version_that_counts(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    publish_it(FINGERPRINT)
    publish_it(OTHER)

    first, second = (standing(store, model, each) for each in (FINGERPRINT, OTHER))

    assert (first.published, first.changes) == (None, ("recipe.opset 20 -> 17",))
    assert second.published is not None
    assert second.published.version == 2


@pytest.mark.parametrize("path", CONTENTS)
def test_a_file_that_is_gone_is_missed(
    store: S3Store, model: str, publish_it: Callable[..., Published], path: str
) -> None:
    publish_it()
    store.client.delete_object(Bucket=store.bucket, Key=f"{model}/1/{path}")

    found = standing(store, model, FINGERPRINT)

    assert found.published is None
    assert found.changes == (f"{path} is gone",)


@pytest.mark.parametrize("path", [path for path, content in CONTENTS.items() if content])
def test_other_bytes_of_the_same_size_are_noticed(
    store: S3Store, model: str, publish_it: Callable[..., Published], path: str
) -> None:
    publish_it()
    content = bytearray(CONTENTS[path])
    content[-1] ^= 1
    overwrite(store, f"{model}/1/{path}", bytes(content))

    found = standing(store, model, FINGERPRINT)

    assert found.published is None
    assert found.changes == (f"{path} holds other bytes",)


@pytest.mark.parametrize("path", CONTENTS)
def test_another_size_is_noticed_without_reading(
    store: S3Store,
    model: str,
    publish_it: Callable[..., Published],
    requests: list[str],
    path: str,
) -> None:
    publish_it()
    overwrite(store, f"{model}/1/{path}", CONTENTS[path] + b"x")
    requests.clear()

    found = standing(store, model, FINGERPRINT)

    size = len(CONTENTS[path])
    assert found.changes == (f"{path} has {size + 1:,} bytes (expected {size:,})",)
    assert requests == ["GetObject", "GetObject", "ListObjectsV2"]


def test_every_damaged_file_is_named(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    publish_it()
    overwrite(store, f"{model}/1/onnx/model.onnx", b"ONNX")
    store.client.delete_object(Bucket=store.bucket, Key=f"{model}/1/parity/onnx.json")

    found = standing(store, model, FINGERPRINT)

    assert found.changes == ("onnx/model.onnx holds other bytes", "parity/onnx.json is gone")


def test_the_same_bytes_under_another_tag_are_read_and_found_good(
    store: S3Store, model: str, publish_it: Callable[..., Published], requests: list[str]
) -> None:
    """A copied bucket: what went up in parts lies there in one piece."""
    publish_it()
    path = "onnx/model.onnx.data"
    overwrite(store, f"{model}/1/{path}", CONTENTS[path])
    requests.clear()

    found = standing(store, model, FINGERPRINT)

    assert found.published is not None
    assert requests.count("GetObject") == 2 + 2, "alias, manifest, and the file in two pieces"


def test_a_manifest_that_is_gone_is_missed(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    store.client.delete_object(Bucket=store.bucket, Key=publish_it().manifest.key)

    found = standing(store, model, FINGERPRINT)

    assert found.published is None
    (change,) = found.changes
    assert f"{model}/1/manifest.json: no such object" in change


def test_a_manifest_that_was_tampered_with_is_not_believed(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    key = publish_it(OTHER).manifest.key
    wanted, had = (each.model_dump_json() for each in (FINGERPRINT, OTHER))
    content = json.loads(store.read(key).content)
    assert content["fingerprint"] == json.loads(had)
    overwrite(store, key, json.dumps(content | {"fingerprint": json.loads(wanted)}).encode())

    found = standing(store, model, FINGERPRINT)

    assert found.published is None
    assert "content changed since it was recorded" in found.changes[0]


def test_a_manifest_without_a_fingerprint_is_not_up_to_date_and_that_is_said(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    key = publish_it().manifest.key
    old = json.loads(store.read(key).content)
    del old["fingerprint"]
    content = json.dumps(old).encode()
    overwrite(store, key, content)
    alias_key = f"{model}/aliases/latest.json"
    alias = json.loads(store.read(alias_key).content)
    alias["manifest_sha256"] = hashlib.sha256(content).hexdigest()
    overwrite(store, alias_key, json.dumps(alias).encode())

    found = standing(store, model, FINGERPRINT)

    assert found.published is None
    assert "a fault in fingerprint: Field required" in found.changes[0]


def test_an_alias_that_is_not_one_is_an_error_before_any_work(store: S3Store, model: str) -> None:
    store.create(f"{model}/aliases/latest.json", b"{}")

    with pytest.raises(UnreadableDocumentError, match=r"latest\.json: cannot be read"):
        standing(store, model, FINGERPRINT)


def test_a_store_that_cannot_be_asked_is_an_error_and_not_a_reason(
    s3_server: S3Server, model: str
) -> None:
    nowhere = open_store(s3_server.settings.model_copy(update={"bucket": "no-such-bucket"}))

    with pytest.raises(StorageError, match="the bucket does not exist"):
        standing(nowhere, model, FINGERPRINT)


@pytest.mark.parametrize(
    "step", ["claimed", "uploaded onnx/model.onnx", "read back onnx", "read back parity"]
)
def test_a_release_that_broke_off_is_not_up_to_date(
    store: S3Store, model: str, publish_it: Callable[..., Published], step: str
) -> None:
    publish_it(FINGERPRINT)

    def die(_share: float, text: str) -> None:
        if text.startswith(step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_it(OTHER, on_progress=die)

    broken_off, before = (standing(store, model, each) for each in (OTHER, FINGERPRINT))
    assert broken_off.published is None
    assert before.published is not None
    assert before.published.version == 1


def test_a_release_that_was_committed_but_is_not_latest_is_not_up_to_date(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    def die(_share: float, text: str) -> None:
        if text.startswith("committed"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_it(on_progress=die)

    assert standing(store, model, FINGERPRINT).published is None


def test_what_lies_in_quarantine_is_not_up_to_date(
    store: S3Store, model: str, tmp_path: Path
) -> None:
    quarantine(store, model, "run", write_files(tmp_path, {"1-onnx.json": b"{}"}))

    found = standing(store, model, FINGERPRINT)

    assert (found.version, found.published) == (None, None)


def test_the_manifest_records_the_tag_of_every_file_as_the_store_lists_it(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    publish_it()

    manifest = latest(store, model)

    assert manifest is not None
    listed = {each.key: each.etag for each in store.entries(f"{model}/1/")}
    assert {
        f"{model}/1/{file.path}": file.etag for file in manifest.files
    }.items() <= listed.items()
    assert len({file.etag for file in manifest.files}) == len(CONTENTS)


def test_a_file_replaced_between_upload_and_read_back_leaves_no_tag_of_other_bytes(
    store: S3Store, model: str, publish_it: Callable[..., Published]
) -> None:
    """The read-back saw the right bytes; what came after them has another tag."""

    def replace(_share: float, text: str) -> None:
        if text == "read back onnx/model.onnx":
            overwrite(store, f"{model}/1/onnx/model.onnx", b"ONNX")

    publish_it(on_progress=replace)

    assert standing(store, model, FINGERPRINT).changes == ("onnx/model.onnx holds other bytes",)
