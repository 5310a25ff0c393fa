"""What goes wrong between us and an S3 store, in our own words."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.domain import errors
from tasks.domain.errors import ReleaseError
from tasks.settings import StoreSettings
from tasks.storage.s3 import S3Store, open_store
from tasks.storage.s3_errors import translated
from tests.support.flaky_server import FlakyServer, Reply


def store_at(address: str) -> S3Store:
    return open_store(
        StoreSettings(
            endpoint=address,
            bucket="models",
            region="us-east-1",
            access_key_id="key",
            secret_access_key=SecretStr("secret"),
            browser_url=None,
        )
    )


def refusal(status: int, code: str, message: str = "so it is") -> Reply:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return Reply(body, status=status, kind="application/xml")


REFUSALS = [
    pytest.param(404, "NoSuchKey", "ArtifactNotFoundError", "no such object", id="no-key"),
    pytest.param(404, "NoSuchBucket", "StorageError", "CONVEYOR_STORE_BUCKET", id="no-bucket"),
    pytest.param(
        403, "InvalidAccessKeyId", "StorageError", "CONVEYOR_STORE_ACCESS_KEY_ID", id="bad-key"
    ),
    pytest.param(
        403,
        "SignatureDoesNotMatch",
        "StorageError",
        "CONVEYOR_STORE_SECRET_ACCESS_KEY",
        id="bad-secret",
    ),
    pytest.param(403, "AccessDenied", "StorageError", "read and write rights", id="no-rights"),
    pytest.param(403, "RequestTimeTooSkewed", "StorageError", "clock", id="wrong-clock"),
    pytest.param(400, "ExpiredToken", "StorageError", "have expired. Renew", id="expired"),
    pytest.param(501, "NotImplemented", "StorageError", "cannot do this", id="cannot"),
    pytest.param(507, "XMinioStorageFull", "StorageError", "the store is full", id="full"),
    pytest.param(400, "BadDigest", "StorageUnavailableError", "damaged on its way", id="damaged"),
    pytest.param(503, "SlowDown", "StorageUnavailableError", "Try again later", id="busy"),
    pytest.param(500, "InternalError", "StorageUnavailableError", "disk is full", id="broken"),
    pytest.param(418, "ImATeapot", "StorageError", "the store refused", id="unheard-of"),
]


@pytest.mark.parametrize(("status", "code", "kind", "words"), REFUSALS)
def test_a_refusal_says_where_what_and_what_next(
    status: int, code: str, kind: str, words: str
) -> None:
    with FlakyServer([refusal(status, code)]) as server:
        store = store_at(server.address)

        with pytest.raises(ReleaseError, match=words) as caught:
            store.read("iris/1/manifest.json")

    assert type(caught.value) is getattr(errors, kind)
    assert str(caught.value).startswith("s3://models/iris/1/manifest.json: ")
    assert caught.value.__cause__ is not None


def test_a_passing_weakness_of_the_server_is_not_noticed() -> None:
    with FlakyServer([refusal(503, "SlowDown"), Reply(b"content")]) as server:
        text = store_at(server.address).read("key")

    assert text.content == b"content"
    assert len(server.requests) == 2


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    with FlakyServer([Reply(b"x" * 100_000, cut=1_000), Reply(b"y" * 100_000)]) as server:
        text = store_at(server.address).read("key")

    assert text.content == b"y" * 100_000


def test_answers_that_always_break_off_are_worth_another_try_later() -> None:
    with FlakyServer([Reply(b"x" * 100_000, cut=1_000)]) as server:
        store = store_at(server.address)

        with pytest.raises(errors.StorageUnavailableError, match="broke off") as caught:
            store.read("key")

    assert caught.value.transient


def test_a_server_that_is_down_is_worth_another_try_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(errors.StorageUnavailableError, match="Is it up"):
        store_at(f"http://127.0.0.1:{port}").read("key")


def test_an_endpoint_that_is_no_url_is_a_wrong_setting() -> None:
    with pytest.raises(errors.ConfigurationError, match="CONVEYOR_STORE_ENDPOINT: not a URL"):
        store_at("localhost")


def test_a_full_disk_here_names_the_file_and_the_key() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/scratch/model.onnx")

    with (
        pytest.raises(errors.StorageError, match=r"/scratch/model.onnx: the disk .* s3://m/key"),
        translated("s3://m/key"),
    ):
        raise full


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(errors.StorageError, match=r"No such file.*nowhere"):
        store_at("http://127.0.0.1:9").put(Path("/nowhere"), "key")


def test_our_own_errors_pass_unchanged() -> None:
    own = errors.DigestMismatchError("mine")

    with pytest.raises(errors.DigestMismatchError) as caught, translated("s3://models/key"):
        raise own

    assert caught.value is own


def test_the_store_s_module_is_cheap_to_import() -> None:
    code = "import sys, tasks.storage.s3, tasks.storage.publishing; print('boto3' in sys.modules)"

    printed = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert printed.strip() == "False"
