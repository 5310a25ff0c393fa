"""Publishing when something dies: the publisher, the server, the connection, a disk."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from pydantic import SecretStr

from deployments.s3_server import S3Server
from tasks.domain.errors import ArtifactNotFoundError, StorageError, StorageUnavailableError
from tasks.settings import LocalSettings
from tasks.storage.keys import signing_key
from tasks.storage.publishing import latest, publish, read_release
from tasks.storage.s3 import S3Store, open_store
from tasks.storage.signing import signed_digests
from tasks.storage.usable import ensure_usable
from tests.support.cutting_proxy import CuttingProxy
from tests.support.publisher import files_below, manifest_maker, seal_for, write_files
from tests.support.s3_gateway import Answer, Request, S3Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.domain.release import Manifest, Published

MIB = 1024 * 1024
CONTENTS = {"onnx/model.onnx": b"onnx", "parity/onnx.json": b"{}"}
STEPS = (
    *("claimed", "upload 1", "upload 2", "check 1", "check 2"),
    *("provenance", "settled", "signed", "committed", "published"),
)


@pytest.fixture
def store(s3_server: S3Server) -> S3Store:
    return open_store(s3_server.settings)


@pytest.fixture
def model() -> str:
    return f"model-{os.urandom(4).hex()}"


@pytest.fixture(scope="module")
def frail_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Start a server that tests may kill, if they start it again."""
    with S3Server(tmp_path_factory.mktemp("frail"), grace_seconds=0) as server:
        yield server


def publish_from(store: S3Store, model: str, folder: Path, owner: str) -> Published:
    seal, files = seal_for(model), files_below(folder)
    manifest_for = manifest_maker(model, seal.signing)
    return publish(store, model, files, manifest_for, owner=owner, seal=seal)


def start_publisher(
    server: S3Server, model: str, folder: Path, fatal_step: int
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.publisher"]
    return subprocess.Popen(
        [*command, model, "killed", str(folder), str(fatal_step)],
        env=os.environ | server.environment(),
    )


def wait_for_upload(store: S3Store, key: str) -> None:
    """Return once some of a large file's parts have reached the server."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        begun = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=key)
        for upload in begun.get("Uploads", ()):
            parts = store.client.list_parts(
                Bucket=store.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
            if parts.get("Parts"):
                return
        time.sleep(0.01)
    raise AssertionError("no upload began")


def whole(store: S3Store, manifest: Manifest | None) -> dict[str, bytes]:
    """Return what a reader gets who follows the manifest; it fails if anything is missing."""
    assert manifest is not None
    root = f"{manifest.model}/{manifest.version}"
    contents = {file.path: store.read(f"{root}/{file.path}").content for file in manifest.files}
    contents.pop("provenance.json", None)
    return contents


def require_signed(store: S3Store, model: str, version: int) -> None:
    """Hold the signature of a published version to the bytes that a reader gets."""
    manifest = read_release(store, model, version)
    key = signing_key(LocalSettings())
    assert key is not None
    signature = store.read(f"{model}/{version}/model.sig").content

    signed = signed_digests(signature, key.public_pem, "model.sig")

    content = store.read(f"{model}/{version}/manifest.json").content
    digests = {file.path: file.sha256 for file in manifest.files}
    assert signed == digests | {"manifest.json": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1), ids=STEPS)
def test_a_publisher_killed_after_any_step_leaves_no_half_release_and_the_next_one_succeeds(
    s3_server: S3Server, store: S3Store, model: str, tmp_path: Path, step: int
) -> None:
    before = write_files(tmp_path / "before", {"onnx/model.onnx": b"before"})
    publish(store, model, before, manifest_maker(model), owner="before")
    write_files(tmp_path / "new", CONTENTS)

    victim = start_publisher(s3_server, model, tmp_path / "new", fatal_step=step)
    assert victim.wait(60) == -signal.SIGKILL

    # what a reader sees now
    committed = step >= STEPS.index("committed") + 1
    alias_moved = step == len(STEPS)
    seen = whole(store, latest(store, model))
    assert seen == (CONTENTS if alias_moved else {"onnx/model.onnx": b"before"})
    if not committed:
        with pytest.raises(ArtifactNotFoundError):
            read_release(store, model, 2)
    # what the next run does, be it the same one or another
    retried = publish_from(store, model, tmp_path / "new", "killed")
    other = publish_from(store, model, tmp_path / "new", "other")
    assert (retried.version, other.version) == (2, 3)
    require_signed(store, model, 2)
    require_signed(store, model, 3)
    assert whole(store, read_release(store, model, 2)) == CONTENTS
    assert whole(store, latest(store, model)) == CONTENTS
    assert whole(store, read_release(store, model, 1)) == {"onnx/model.onnx": b"before"}


def test_a_publisher_killed_in_mid_upload_leaves_no_object(
    s3_server: S3Server, store: S3Store, model: str, tmp_path: Path
) -> None:
    write_files(tmp_path / "new", {"onnx/model.onnx": os.urandom(100 * MIB)})
    victim = start_publisher(s3_server, model, tmp_path / "new", fatal_step=0)
    wait_for_upload(store, f"{model}/1/onnx/model.onnx")

    victim.kill()

    assert victim.wait(60) == -signal.SIGKILL
    assert list(store.keys(f"{model}/")) == [f"{model}/1/.claim.json"]
    assert publish_from(store, model, tmp_path / "new", "killed").version == 1


def test_a_server_killed_in_mid_upload_is_worth_another_try_which_succeeds(
    frail_server: S3Server, model: str, tmp_path: Path
) -> None:
    store = open_store(frail_server.settings)
    write_files(tmp_path / "old", {"onnx/model.onnx": b"before"})
    publish_from(store, model, tmp_path / "old", "before")
    write_files(tmp_path / "new", {"onnx/model.onnx": os.urandom(100 * MIB)})

    with ThreadPoolExecutor(1) as pool:
        try_ = pool.submit(publish_from, store, model, tmp_path / "new", "run")
        wait_for_upload(store, f"{model}/2/onnx/model.onnx")
        frail_server.stop()
        with pytest.raises(StorageUnavailableError, match="Is it up"):
            try_.result()
    frail_server.start()

    assert whole(store, latest(store, model)) == {"onnx/model.onnx": b"before"}
    assert publish_from(store, model, tmp_path / "new", "run").version == 2
    sizes = {file.path: file.size_bytes for file in read_release(store, model, 2).files}
    assert sizes["onnx/model.onnx"] == 100 * MIB


def test_a_connection_that_breaks_once_is_not_noticed(
    s3_server: S3Server, store: S3Store, model: str, tmp_path: Path
) -> None:
    path = write_files(tmp_path, {"file": os.urandom(40 * MIB)})["file"]
    with CuttingProxy(s3_server.endpoint, up_bytes=20 * MIB, cuts=1) as proxy:
        settings = s3_server.settings.model_copy(update={"endpoint": proxy.address})

        file = open_store(settings).put(path, f"{model}/file")

    assert proxy.cuts == 0
    store.check(file)


def test_a_connection_that_keeps_breaking_is_worth_another_try_and_leaves_no_object(
    s3_server: S3Server, store: S3Store, model: str, tmp_path: Path
) -> None:
    path = write_files(tmp_path, {"file": os.urandom(40 * MIB)})["file"]
    with CuttingProxy(s3_server.endpoint, up_bytes=12 * MIB) as proxy:
        settings = s3_server.settings.model_copy(update={"endpoint": proxy.address})

        with pytest.raises(StorageUnavailableError, match="broke off"):
            open_store(settings).put(path, f"{model}/file")

    assert list(store.keys(f"{model}/")) == []
    store.check(store.put(path, f"{model}/file"))
    left = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=model)
    assert not left.get("Uploads")


def test_credentials_that_expire_in_mid_publishing_show_nothing_and_new_ones_go_on(
    s3_server: S3Server, store: S3Store, model: str, tmp_path: Path
) -> None:
    write_files(tmp_path / "old", {"onnx/model.onnx": b"before"})
    publish_from(store, model, tmp_path / "old", "before")
    write_files(tmp_path / "new", {"onnx/model.onnx": os.urandom(20 * MIB)})
    parts = count(1)

    def expire(request: Request) -> Answer | frozenset[str]:
        if "partNumber=" in request.path and next(parts) > 1:
            return Answer(400, "ExpiredToken")
        return frozenset()

    with (
        S3Gateway(s3_server.settings, expire) as gateway,
        pytest.raises(StorageError, match="credentials have expired") as caught,
    ):
        publish_from(open_store(gateway.settings), model, tmp_path / "new", "run")

    assert not caught.value.transient
    assert whole(store, latest(store, model)) == {"onnx/model.onnx": b"before"}
    with pytest.raises(ArtifactNotFoundError):
        read_release(store, model, 2)
    assert publish_from(store, model, tmp_path / "new", "run").version == 2
    sizes = {each.path: each.size_bytes for each in read_release(store, model, 2).files}
    assert sizes["onnx/model.onnx"] == 20 * MIB


def test_a_download_that_breaks_once_is_taken_up_again(
    s3_server: S3Server, store: S3Store, model: str, tmp_path: Path
) -> None:
    path = write_files(tmp_path, {"file": os.urandom(40 * MIB)})["file"]
    file = store.put(path, f"{model}/file")
    with CuttingProxy(s3_server.endpoint, down_bytes=20 * MIB, cuts=1) as proxy:
        settings = s3_server.settings.model_copy(update={"endpoint": proxy.address})

        open_store(settings).get(file, tmp_path / "back")

    assert proxy.cuts == 0
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("size", [6 * MIB, 20 * MIB], ids=["one-request", "in-parts"])
def test_a_server_without_room_publishes_nothing_until_it_has_some(
    frail_server: S3Server, model: str, tmp_path: Path, size: int
) -> None:
    store = open_store(frail_server.settings)
    write_files(tmp_path / "old", {"onnx/model.onnx": b"before"})
    publish_from(store, model, tmp_path / "old", "before")
    write_files(tmp_path / "new", {"onnx/model.onnx": os.urandom(size)})
    weed = next(
        each
        for each in psutil.Process().children(recursive=True)
        if each.name() == "weed" and str(frail_server.folder) in " ".join(each.cmdline())
    )
    everything = weed.rlimit(psutil.RLIMIT_FSIZE)

    weed.rlimit(psutil.RLIMIT_FSIZE, (MIB, everything[1]))
    with pytest.raises(StorageUnavailableError, match="whether its disk is full"):
        publish_from(store, model, tmp_path / "new", "run")
    seen = whole(store, latest(store, model))
    weed.rlimit(psutil.RLIMIT_FSIZE, everything)

    assert seen == {"onnx/model.onnx": b"before"}
    assert publish_from(store, model, tmp_path / "new", "run").version == 2


_GET_WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
from tasks.domain.artifact import StoredFile
from tasks.domain.errors import StorageError
from tasks.settings import store_settings
from tasks.storage.s3 import open_store

resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    open_store(store_settings()).get(StoredFile.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
except StorageError as error:
    print(type(error).__name__, error)
"""


def test_a_download_without_room_here_says_so_and_leaves_nothing(
    s3_server: S3Server, store: S3Store, model: str, tmp_path: Path
) -> None:
    path = write_files(tmp_path, {"file": os.urandom(12 * MIB)})["file"]
    file = store.put(path, f"{model}/file")
    target = tmp_path / "new" / "back"

    printed = subprocess.check_output(
        [sys.executable, "-c", _GET_WITHOUT_ROOM, file.model_dump_json(), str(target)],
        env=os.environ | s3_server.environment(),
        text=True,
    )

    assert printed.startswith("StorageError ")
    assert "the disk of this machine is full" in printed
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"bucket": "nobody"}, "the bucket does not exist", id="no-bucket"),
        pytest.param({"access_key_id": "other"}, "does not know the access key", id="key"),
        pytest.param(
            {"secret_access_key": SecretStr("other")}, "the secret does not belong", id="secret"
        ),
    ],
)
def test_a_wrong_setting_is_named_before_the_run(
    s3_server: S3Server, changes: dict[str, object], words: str
) -> None:
    wrong = open_store(s3_server.settings.model_copy(update=changes))

    with pytest.raises(StorageError, match=words) as caught:
        ensure_usable(wrong)

    assert not caught.value.transient


def test_a_server_that_is_down_is_named_before_the_run(s3_server: S3Server) -> None:
    nobody = s3_server.settings.model_copy(update={"endpoint": "http://127.0.0.1:9"})

    with pytest.raises(StorageUnavailableError, match="did not answer"):
        ensure_usable(open_store(nobody))


_THERE_AND_BACK = """
import sys
from pathlib import Path
import prefect
from tasks.settings import store_settings
from tasks.storage.s3 import open_store

store, source = open_store(store_settings()), Path(sys.argv[1])
file = store.put(source, sys.argv[2])
store.check(file)
store.get(file, source.with_name("back"))
status = Path("/proc/self/status").read_text()
print(file.size_bytes, status.partition("VmHWM:")[2].split()[0])
"""


def test_a_large_file_goes_there_and_back_in_less_than_300_mb(
    s3_server: S3Server, model: str, tmp_path: Path
) -> None:
    source = tmp_path / "file"
    with source.open("wb") as file:
        file.truncate(400 * MIB)

    printed = subprocess.check_output(
        [sys.executable, "-c", _THERE_AND_BACK, str(source), f"{model}/file"],
        env=os.environ | s3_server.environment(),
        text=True,
    )

    size_bytes, peak_kib = map(int, printed.split())
    assert size_bytes == 400 * MIB
    assert peak_kib < 300 * 1024
