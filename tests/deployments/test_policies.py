"""A worker's user of the store may do what a release needs, and no more; a real server says so."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from deployments.policies import ROLES, policy
from tasks.storage.aliases import promote
from tasks.storage.current_pages import write_current_pages
from tasks.storage.publishing import latest, publish, quarantine
from tasks.storage.s3 import S3Store, open_store
from tasks.storage.s3_inventory import S3Inventory
from tasks.storage.s3_transfer import PIECE_BYTES
from tasks.storage.usable import ensure_usable
from tests.support.publisher import manifest_maker, seal_for, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deployments.s3_server import S3Server

ROOT = Path(__file__).resolve().parents[2]
NEEDS = {
    # Source: Service Authorization Reference, "Actions defined by Amazon S3"
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "PutObject": "s3:PutObject",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}
"""What a request needs the right to."""


@pytest.fixture
def owner(s3_server: S3Server) -> S3Store:
    return open_store(s3_server.settings)


@pytest.fixture
def worker(s3_server: S3Server) -> S3Store:
    return open_store(s3_server.worker_settings)


@pytest.fixture
def model(owner: S3Store) -> str:
    """Return the name of a model with one object in its first version."""
    name = f"model-{os.urandom(4).hex()}"
    owner.create(f"{name}/1/manifest.json", b"{}")
    return name


def allows(document: Mapping[str, Any], action: str, resource: str) -> bool:
    return any(
        action in statement["Action"]
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in statement["Resource"])
        for statement in document["Statement"]
    )


def asked_of(store: S3Store) -> list[tuple[str, str]]:
    """Return a list that fills with what ``store`` is asked: right and resource."""
    asked: list[tuple[str, str]] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        bucket = f"arn:aws:s3:::{params['Bucket']}"
        keys = [params["Key"]] if "Key" in params else []
        keys += [each["Key"] for each in params.get("Delete", {}).get("Objects", [])]
        right = NEEDS[model.name]
        asked.extend((right, f"{bucket}/{key}") for key in keys)
        if not keys:
            asked.append((right, bucket))

    store.client.meta.events.register("provide-client-params.s3.*", note)
    return asked


def release_all(store: S3Store, name: str, folder: Path) -> None:
    """Do with the store what runs do: probe, share files, publish twice, move, fail, clear."""
    ensure_usable(store)
    small = write_files(folder / "small", {"onnx/model.onnx": b"onnx"})
    store.put(folder / "small" / "onnx" / "model.onnx", "work/run-1/model.onnx")
    store.remove("work/run-1/")
    seal = seal_for(name)
    publish(store, name, small, manifest_maker(name, seal.signing), owner="first", seal=seal)
    large = {"onnx/model.onnx": b"new", "onnx/model.onnx.data": os.urandom(PIECE_BYTES * 2 + 7)}
    files = write_files(folder / "large", large)
    publish(store, name, files, manifest_maker(name, seal.signing), owner="second", seal=seal)
    write_current_pages(store, name)
    promote(
        S3Inventory(store.client, store.bucket), name, "champion", 1, by="somebody", reason="tried"
    )
    quarantine(store, name, "run-1", small)


def refusal(request: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as caught:
        request()
    return str(caught.value.response["Error"]["Code"])


def test_a_worker_can_release(worker: S3Store, tmp_path: Path) -> None:
    name = f"model-{os.urandom(4).hex()}"

    release_all(worker, name, tmp_path)

    released = latest(worker, name)
    assert released is not None
    assert released.version == 2


def test_every_request_of_a_release_is_allowed_and_no_right_is_left_over(
    owner: S3Store, tmp_path: Path
) -> None:
    asked = asked_of(owner)
    document = policy("worker", owner.bucket)

    release_all(owner, f"model-{os.urandom(4).hex()}", tmp_path)

    assert len(asked) > 50
    assert [each for each in asked if not allows(document, *each)] == []
    granted = {action for statement in document["Statement"] for action in statement["Action"]}
    # what a try asks for that goes on where another broke off
    resuming = {"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}
    assert granted - {right for right, _ in asked} <= resuming


@pytest.mark.parametrize(
    "ask",
    [
        lambda s3, where: s3.delete_object(**where),
        lambda s3, where: s3.put_object(Bucket=where["Bucket"], Key="elsewhere.txt", Body=b""),
        lambda s3, where: s3.put_object(Bucket="others", Key=where["Key"], Body=b""),
        lambda s3, _: s3.create_bucket(Bucket="others"),
        lambda s3, where: s3.delete_bucket(Bucket=where["Bucket"]),
        lambda s3, where: s3.put_bucket_policy(Bucket=where["Bucket"], Policy="{}"),
        lambda s3, where: s3.put_bucket_versioning(
            Bucket=where["Bucket"], VersioningConfiguration={"Status": "Suspended"}
        ),
        lambda s3, where: s3.put_object_acl(**where, ACL="public-read"),
    ],
    ids=[
        *("remove-a-release", "write-beside-the-models", "write-to-another-bucket"),
        *("make-a-bucket", "remove-the-bucket", "change-rights", "change-versioning", "publish"),
    ],
)
def test_a_worker_is_refused(
    ask: Callable[[Any, dict[str, str]], object], worker: S3Store, owner: S3Store, model: str
) -> None:
    where = {"Bucket": worker.bucket, "Key": f"{model}/1/manifest.json"}

    assert refusal(lambda: ask(worker.client, where)) == "AccessDenied"

    assert owner.read(where["Key"]).content == b"{}"


def test_a_worker_removes_no_release_in_a_batch_either(
    worker: S3Store, owner: S3Store, model: str
) -> None:
    key = f"{model}/1/manifest.json"

    answer = worker.client.delete_objects(Bucket=worker.bucket, Delete={"Objects": [{"Key": key}]})

    assert [each["Key"] for each in answer.get("Errors", [])] == [key]
    assert owner.read(key).content == b"{}"


def test_a_policy_can_be_for_some_models_alone() -> None:
    document = policy("worker", "shop", ["vision-*", "iris"])

    written = [f"arn:aws:s3:::shop/{key}" for key in ("vision-a/1/x", "iris/1/x", "work/r/x")]
    others = [f"arn:aws:s3:::shop/{key}" for key in ("nlp/1/x", "irises/1/x", "quarantine/nlp/r")]
    assert all(allows(document, "s3:PutObject", each) for each in written)
    assert not any(allows(document, "s3:PutObject", each) for each in others)
    assert allows(document, "s3:GetObject", others[0])


def test_upkeep_may_also_remove_and_nothing_else() -> None:
    worker, upkeep = (policy(role, "models") for role in ROLES)

    release = "arn:aws:s3:::models/iris/1/manifest.json"
    assert not allows(worker, "s3:DeleteObject", release)
    assert allows(upkeep, "s3:DeleteObject", release)
    assert upkeep["Statement"][:-1] == worker["Statement"][:-1]


def test_a_policy_is_printed_whole() -> None:
    command = [sys.executable, "-m", "deployments.policies", "worker", "--bucket", "shop"]

    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)

    assert json.loads(done.stdout) == policy("worker", "shop")
    assert not re.search("BUCKET|MODELS", done.stdout)
