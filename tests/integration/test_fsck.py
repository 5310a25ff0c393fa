"""Checking a real bucket: every way in which it can be wrong is found, and said by key."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deployments.s3_server import S3Server
from tasks.domain.errors import StorageUnavailableError
from tasks.storage.aliases import promote
from tasks.storage.fsck import fsck
from tasks.storage.holds import hold
from tasks.storage.publishing import publish
from tasks.storage.s3_inventory import S3Inventory, open_inventory
from tests.support.publisher import manifest_maker, write_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.domain.findings import BucketReport, Finding

MIB = 1024 * 1024
CONTENTS = {
    "onnx/model.onnx": b"the weights of the model",
    "onnx/model.onnx.data": os.urandom(9 * MIB),
    "parity/onnx.json": b"{}",
    "golden/empty": b"",
}


@pytest.fixture
def store(s3_server: S3Server) -> S3Inventory:
    return open_inventory(s3_server.settings)


@pytest.fixture
def model(store: S3Inventory, tmp_path: Path) -> str:
    """Publish two releases and return the model's name."""
    name = f"model-{os.urandom(4).hex()}"
    files = write_files(tmp_path, CONTENTS)
    for owner in ("one", "two"):
        publish(store, name, files, manifest_maker(name), owner=owner)
    return name


def overwrite(store: S3Inventory, key: str, content: bytes) -> None:
    store.client.put_object(Bucket=store.bucket, Key=key, Body=content)


def found(report: BucketReport) -> list[tuple[str, str, str]]:
    return [(each.level, each.kind, each.key.partition("/")[2]) for each in report.findings]


def only(report: BucketReport) -> Finding:
    (finding,) = report.findings
    return finding


def test_a_sound_model_has_no_findings_and_every_byte_was_read(
    store: S3Inventory, model: str
) -> None:
    hold(store, model, 1, by="ann", reason="a customer runs it")
    shares: list[float] = []

    report = fsck(store, model, on_progress=lambda share, _text: shares.append(share))

    assert report.findings == ()
    assert report.sound
    assert (report.models, report.releases, report.files) == (1, 2, 8)
    assert report.size_bytes == 2 * sum(map(len, CONTENTS.values()))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert report.summary().startswith("sound: 2 releases of 1 models, 8 files read (18.9 MB)")


def test_a_deleted_object_is_found(store: S3Inventory, model: str) -> None:
    store.delete([f"{model}/1/parity/onnx.json"], f"{model}/1/")

    finding = only(fsck(store, model))

    assert str(finding).startswith(
        f"error: {model}/1/parity/onnx.json: is missing (expected 2 bytes, got no object). Restore"
    )


@pytest.mark.parametrize("path", ["onnx/model.onnx", "onnx/model.onnx.data"])
def test_one_flipped_bit_is_found_though_the_size_is_right(
    store: S3Inventory, model: str, path: str
) -> None:
    content = bytearray(CONTENTS[path])
    content[len(content) // 2] ^= 1
    overwrite(store, f"{model}/2/{path}", bytes(content))

    finding = only(fsck(store, model))

    assert (finding.level, finding.kind, finding.key) == ("error", "digest", f"{model}/2/{path}")
    assert re.fullmatch(r"has other content \(expected sha256 \w{12}, got \w{12}\)", finding.what)


def test_another_size_and_an_object_that_nobody_named_are_found(
    store: S3Inventory, model: str
) -> None:
    overwrite(store, f"{model}/1/onnx/model.onnx", b"cut")
    overwrite(store, f"{model}/1/onnx/extra.bin", b"?")

    report = fsck(store, model)

    assert found(report) == [
        ("error", "size", "1/onnx/model.onnx"),
        ("error", "extra", "1/onnx/extra.bin"),
    ]
    assert report.summary().startswith("2 errors: ")


def test_a_manifest_that_changed_is_found_by_the_alias_that_names_it(
    store: S3Inventory, model: str
) -> None:
    key = f"{model}/2/manifest.json"
    overwrite(store, key, store.read(key).content.replace(b'"seeded": false', b'"seeded": true'))

    finding = only(fsck(store, model))

    assert (finding.kind, finding.key) == ("alias", f"{model}/aliases/latest.json")
    assert "'latest' stands at version 2, whose manifest is another (expected" in finding.what


def test_a_deleted_manifest_is_an_error_where_an_alias_or_a_hold_needs_it(
    store: S3Inventory, model: str
) -> None:
    hold(store, model, 1, by="ann", reason="a customer runs it")
    for version in (1, 2):
        store.delete([f"{model}/{version}/manifest.json"], f"{model}/{version}/")

    report = fsck(store, model)

    assert found(report) == [
        ("note", "unfinished", "1/"),
        ("note", "unfinished", "2/"),
        ("error", "alias", "aliases/latest.json"),
        ("error", "hold", "holds/1.json"),
    ]


def test_a_manifest_of_a_newer_schema_or_in_the_wrong_place_is_found_and_not_misread(
    store: S3Inventory, model: str
) -> None:
    text = store.read(f"{model}/1/manifest.json").content
    newer = json.loads(text) | {"schema_version": 2, "files": []}
    overwrite(store, f"{model}/1/manifest.json", json.dumps(newer).encode())
    overwrite(store, f"{model}/3/manifest.json", text.replace(b'"files": [', b'"files": ['))
    overwrite(store, f"{model}/4/manifest.json", b"not JSON")

    report = fsck(store, model)

    kinds = [(each.kind, each.key) for each in report.findings if each.kind != "missing"]
    assert kinds == [
        ("schema", f"{model}/1/manifest.json"),
        ("manifest", f"{model}/3/manifest.json"),
        ("unreadable", f"{model}/4/manifest.json"),
    ]
    assert "expected schema_version 1 or less, got 2" in report.findings[0].what


def test_times_in_documents_that_lie_far_off_are_no_finding(store: S3Inventory, model: str) -> None:
    key = f"{model}/aliases/latest.json"
    alias = json.loads(store.read(key).content) | {"moved": "2199-01-01T00:00:00Z"}
    overwrite(store, key, json.dumps(alias).encode())

    assert fsck(store, model).findings == ()


def test_leftovers_are_notes_and_only_repair_aborts_uploads(store: S3Inventory, model: str) -> None:
    store.create(f"quarantine/{model}/run/report.html", b"<p>")
    store.create(f"{model}/3/.claim.json", b"{}")
    store.create(f"{model}/4/something", b"{}")
    store.create(f"{model}/notes.txt", b"{}")
    store.client.create_multipart_upload(Bucket=store.bucket, Key=f"{model}/5/big")

    young = fsck(store, model, repair=True)
    old = fsck(store, model, idle_days=0)
    aborted = fsck(store, model, repair=True, idle_days=0)

    assert {(each.level, each.kind) for each in young.findings} == {
        ("note", kind) for kind in ("unfinished", "unknown", "quarantine", "upload")
    }
    assert young.sound
    last = [report.findings[-1].next for report in (young, old, aborted)]
    assert last == [
        "Its run may be alive.",
        "'conveyor fsck --repair' aborts it.",
        "It was aborted.",
    ]
    assert list(store.uploads(f"{model}/")) == []


def test_the_whole_bucket_is_checked_with_what_runs_share(store: S3Inventory, model: str) -> None:
    run = os.urandom(4).hex()
    store.create(f"work/{run}/file", b"{}")

    report = fsck(store)

    assert report.models >= 1
    assert f"work/{run}" in {each.key for each in report.findings if each.kind == "work"}
    assert not [each for each in report.errors if each.key.startswith(f"{model}/")]
    store.remove(f"work/{run}/")


class _Removing(S3Inventory):
    """Somebody removes a version while it is checked."""

    def check(self, file: object) -> None:
        folder = "/".join(file.key.split("/")[:2])  # type: ignore[attr-defined]
        if folder.endswith("/1"):
            self.remove(f"{folder}/")
        super().check(file)  # type: ignore[arg-type]


def test_a_version_that_is_removed_while_it_is_checked_is_no_error(
    store: S3Inventory, model: str
) -> None:
    finding = only(fsck(_Removing(store.client, store.bucket), model))

    assert (finding.level, finding.what) == ("note", "was removed while it was checked")


class _Publishing(S3Inventory):
    """Somebody publishes, and promotes, while the model is checked."""

    def check(self, file: object) -> None:
        model = file.key.partition("/")[0]  # type: ignore[attr-defined]
        plain = S3Inventory(self.client, self.bucket)
        if not list(plain.keys(f"{model}/3/")):
            publish(plain, model, {"x": Path(__file__)}, manifest_maker(model), owner="three")
            promote(plain, model, "latest", 3, by="ann")
        super().check(file)  # type: ignore[arg-type]


def test_a_version_that_is_published_while_the_model_is_checked_is_no_error(
    store: S3Inventory, model: str
) -> None:
    assert fsck(_Publishing(store.client, store.bucket), model).findings == ()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[S3Server]:
    """Start a server whose disk a test may damage."""
    with S3Server(tmp_path / "own", grace_seconds=0) as server:
        yield server


def test_a_bit_that_flips_on_the_servers_disk_is_found_and_a_dead_server_is_an_error(
    own_server: S3Server, tmp_path: Path
) -> None:
    store = open_inventory(own_server.settings)
    content = os.urandom(20_000)  # the server would store less of what it can compress
    files = write_files(tmp_path / "files", {"a": content, "b": b"fine"})
    publish(store, "m", files, manifest_maker("m"), owner="one")
    own_server.stop()
    flip_on_disk(own_server.folder, content[5_000:5_100])
    own_server.start()
    store = open_inventory(own_server.settings)

    finding = only(fsck(store))
    own_server.stop()

    assert (finding.level, finding.key) == ("error", "m/1/a")
    assert finding.kind in {"digest", "unreadable"}
    with pytest.raises(StorageUnavailableError):
        fsck(store)


def flip_on_disk(folder: Path, text: bytes) -> None:
    """Flip one bit of every copy of ``text`` in the server's volumes."""
    flipped = 0
    for path in folder.rglob("*.dat"):
        content = bytearray(path.read_bytes())
        at = content.find(text)
        if at >= 0:
            content[at] ^= 1
            path.write_bytes(content)
            flipped += 1
    assert flipped


_CHECK = """
import sys
from pathlib import Path
from tasks.settings import store_settings
from tasks.storage.fsck import fsck
from tasks.storage.s3_inventory import open_inventory

report = fsck(open_inventory(store_settings()), sys.argv[1])
status = Path("/proc/self/status").read_text()
print(report.size_bytes, report.sound, status.partition("VmHWM:")[2].split()[0])
"""


def test_a_large_file_is_checked_without_being_held_in_memory(
    s3_server: S3Server, store: S3Inventory, tmp_path: Path
) -> None:
    name = f"model-{os.urandom(4).hex()}"
    with (tmp_path / "big").open("wb") as file:
        file.truncate(300 * MIB)
    publish(store, name, {"big": tmp_path / "big"}, manifest_maker(name), owner="one")

    printed = subprocess.check_output(
        [sys.executable, "-c", _CHECK, name],
        env=os.environ | s3_server.environment(),
        text=True,
    )

    size_bytes, sound, peak_kib = printed.split()
    assert (int(size_bytes), sound) == (300 * MIB, "True")
    assert int(peak_kib) < 250 * 1024
