"""SIGKILL after each single request of publishing a release one of whose files goes in parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tasks.domain.errors import ArtifactNotFoundError
from tasks.storage.publishing import latest, publish, read_release
from tasks.storage.s3 import S3Store, open_store
from tasks.storage.s3_transfer import PIECE_BYTES
from tests.support.publisher import files_below, manifest_maker, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.s3_server import S3Server

PARTS = 3
REQUESTS = (
    *("ListObjectsV2 own claim", "GetObject its owner", "ListObjectsV2 versions"),
    *("PutObject claim", "GetObject manifest"),
    "PutObject model.onnx",
    *("HeadObject weights", "ListMultipartUploads weights", "CreateMultipartUpload weights"),
    *(f"UploadPart {number}" for number in range(1, PARTS + 1)),
    *("CompleteMultipartUpload weights", "HeadObject weights are ours"),
    "ListObjectsV2 what else is there",
    "GetObject read back model.onnx",
    *(f"GetObject read back weights {number}" for number in range(1, PARTS + 1)),
    *("GetObject removal before sealing", "GetObject claim is ours before sealing"),
    *("PutObject provenance", "GetObject read back provenance", "PutObject draft of manifest"),
    *("PutObject public key", "PutObject signature", "GetObject read back signature"),
    *("GetObject removal", "GetObject claim is ours"),
    "PutObject manifest",
    *("GetObject removal since", "GetObject claim is still ours"),
    *("GetObject alias", "PutObject alias"),
)
"""All that is asked of the store, in order, when one version is there already."""

COMMIT = REQUESTS.index("PutObject manifest") + 1
ALIAS = REQUESTS.index("PutObject alias") + 1


@pytest.fixture
def store(s3_server: S3Server) -> S3Store:
    return open_store(s3_server.settings)


@pytest.fixture
def model(store: S3Store, tmp_path: Path) -> str:
    """Publish a first version, and lay out the files of a second one."""
    name = f"model-{os.urandom(4).hex()}"
    before = write_files(tmp_path / "before", {"onnx/model.onnx": b"before"})
    publish(store, name, before, manifest_maker(name), owner="before")
    weights = os.urandom((PARTS - 1) * PIECE_BYTES + 7)
    write_files(tmp_path / "new", {"onnx/model.onnx": b"new", "onnx/model.onnx.data": weights})
    return name


def run_publisher(server: S3Server, model: str, folder: Path, fatal: int) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "tests.support.publisher", model, "killed", str(folder)]
    environment = os.environ | server.environment()
    done = subprocess.run(
        [*command, "0", str(fatal)], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, done.stdout.split()


def require_whole(store: S3Store, model: str, version: int, contents: dict[str, bytes]) -> None:
    manifest = read_release(store, model, version)
    got = {
        each.path: store.read(f"{model}/{version}/{each.path}").content for each in manifest.files
    }
    assert {path: got[path] for path in contents} == contents


def test_the_requests_of_publishing_are_these_and_no_others(
    s3_server: S3Server, model: str, tmp_path: Path
) -> None:
    code, asked = run_publisher(s3_server, model, tmp_path / "new", fatal=0)

    assert code == 0
    assert asked == [each.partition(" ")[0] for each in REQUESTS]


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_number", range(1, len(REQUESTS) + 1), ids=[each.replace(" ", "-") for each in REQUESTS]
)
def test_a_publisher_killed_after_any_request_leaves_no_half_release_and_is_taken_up_again(
    s3_server: S3Server, store: S3Store, model: str, tmp_path: Path, request_number: int
) -> None:
    new = {path: file.read_bytes() for path, file in files_below(tmp_path / "new").items()}
    before = {"onnx/model.onnx": b"before"}

    code, asked = run_publisher(s3_server, model, tmp_path / "new", fatal=request_number)

    assert code == -signal.SIGKILL
    # what a reader sees now
    standing = latest(store, model)
    assert standing is not None
    assert standing.version == (2 if request_number >= ALIAS else 1)
    require_whole(store, model, standing.version, new if request_number >= ALIAS else before)
    if request_number < COMMIT:
        with pytest.raises(ArtifactNotFoundError):
            read_release(store, model, 2)
    # what the next run does
    code, again = run_publisher(s3_server, model, tmp_path / "new", fatal=0)
    assert code == 0
    manifest = latest(store, model)
    assert manifest is not None
    assert manifest.version == 2
    require_whole(store, model, 2, new)
    # what was answered is not sent again
    assert Counter(asked + again)["UploadPart"] <= PARTS
    left = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=f"{model}/")
    assert not left.get("Uploads")
