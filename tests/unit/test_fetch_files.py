"""Downloads from this machine's disk, and from a real S3 server."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from tasks.domain.artifact import sha256_of_tree
from tasks.domain.errors import AcquisitionError, ConfigurationError, DownloadDigestError
from tasks.domain.sources import Download
from tasks.fetch import fetch, from_s3, transfer
from tasks.settings import StoreSettings
from tasks.storage.s3 import open_store
from tests.support.flaky_server import FlakyServer, Reply

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.s3_server import S3Server

BODY = random.Random(2).randbytes(900_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
ANY = "0" * 64


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# --- file: --------------------------------------------------------------------------------------


def test_a_file_of_this_machine_is_copied_so_that_it_cannot_change(
    tmp_path: Path, cache: Path
) -> None:
    source = tmp_path / "a model.bin"
    source.write_bytes(BODY)

    path = fetch(Download(uri=source.as_uri(), sha256=DIGEST), cache)
    source.write_bytes(b"changed")

    assert path.read_bytes() == BODY


def test_a_folder_of_this_machine_is_copied_whole(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "saved"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables" / "data").write_bytes(BODY)
    graph = hashlib.sha256(b"graph").hexdigest()
    digest = sha256_of_tree([("variables/data", DIGEST), ("saved_model.pb", graph)])

    path = fetch(Download(uri=f"{source.as_uri()}/", sha256=digest), cache)

    assert (path / "variables" / "data").read_bytes() == BODY
    assert (path / "saved_model.pb").stat().st_mode & 0o222 == 0


def test_other_content_than_pinned_is_refused(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(BODY)

    with pytest.raises(DownloadDigestError, match=f"expected sha256 {ANY}, got {DIGEST}"):
        fetch(Download(uri=source.as_uri(), sha256=ANY), cache)

    assert list((cache / "parts").iterdir()) == []


def test_a_missing_file_is_said_so(tmp_path: Path, cache: Path) -> None:
    uri = (tmp_path / "nothing.bin").as_uri()

    with pytest.raises(AcquisitionError) as caught:
        fetch(Download(uri=uri, sha256=ANY), cache)

    message = f"{uri}: cannot be read (No such file or directory). Check the recipe's uri."
    assert str(caught.value) == message


def test_a_folder_that_links_elsewhere_is_refused(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "saved"
    source.mkdir()
    (source / "link").symlink_to(tmp_path)

    with pytest.raises(AcquisitionError, match="links to a folder"):
        fetch(Download(uri=source.as_uri(), sha256=ANY), cache)


@pytest.mark.parametrize("uri", ["file://host/model.bin", "file:model.bin"])
def test_a_file_of_another_machine_is_a_fault_of_the_recipe(cache: Path, uri: str) -> None:
    with pytest.raises(ConfigurationError, match="expected file:///absolute/path"):
        fetch(Download(uri=uri, sha256=ANY), cache)


# --- s3: ----------------------------------------------------------------------------------------


@pytest.fixture
def server(s3_server: S3Server, tmp_path: Path) -> S3Server:
    source = tmp_path / "model.bin"
    source.write_bytes(BODY)
    open_store(s3_server.settings).put(source, "shared/model.bin")
    return s3_server


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = transfer.Patience(connect_seconds=2, read_seconds=2, tries=3, pause_seconds=0.01)
    monkeypatch.setattr(transfer, "PATIENCE", patience)


def use(monkeypatch: pytest.MonkeyPatch, settings: StoreSettings) -> None:
    monkeypatch.setattr(from_s3, "store_settings", lambda: settings)


def elsewhere(address: str) -> StoreSettings:
    return StoreSettings(
        endpoint=address, bucket="b", access_key_id="a", secret_access_key=SecretStr("s")
    )


def test_our_own_bucket_is_read_by_the_stores_settings(
    server: S3Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, server.settings)

    path = fetch(Download(uri="s3://models/shared/model.bin", sha256=DIGEST), cache)

    assert path.read_bytes() == BODY


def test_another_bucket_is_read_by_boto3s_own_chain(
    server: S3Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, StoreSettings(bucket="ours-is-another"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    path = fetch(Download(uri="s3://models/shared/model.bin", sha256=DIGEST), cache)

    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    ("uri", "secret", "message"),
    [
        ("s3://models/nothing.bin", None, r"is not there \(NoSuchKey\). Check bucket and key"),
        ("s3://models/shared/model.bin", "wrong", r"does not hand it out \(SignatureDoesNotMatch"),
    ],
    ids=["no-such-key", "wrong-secret"],
)
def test_what_the_server_refuses_is_said(
    server: S3Server,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    secret: str | None,
    message: str,
) -> None:
    changes = {"secret_access_key": SecretStr(secret)} if secret else {}
    use(monkeypatch, server.settings.model_copy(update=changes))

    with pytest.raises(AcquisitionError, match=message):
        fetch(Download(uri=uri, sha256=DIGEST), cache)


def test_a_broken_s3_transfer_is_resumed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FlakyServer([Reply(BODY, cut=400_000), Reply(BODY)]) as flaky:
        use(monkeypatch, elsewhere(flaky.address))
        path = fetch(Download(uri="s3://b/model.bin", sha256=DIGEST), cache)

    resumed_from = int(str(flaky.ranges[1]).removeprefix("bytes=").rstrip("-"))
    assert path.read_bytes() == BODY
    assert 0 < resumed_from <= 400_000
    assert flaky.requests[1]["If-Match"] == '"one"'


def test_an_s3_server_out_of_reach_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, elsewhere("http://127.0.0.1:9"))

    with pytest.raises(AcquisitionError, match=r"S3 server cannot be reached .*put the file at"):
        fetch(Download(uri="s3://b/model.bin", sha256=DIGEST), cache)


def test_a_prefix_is_no_object(cache: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"expected s3://bucket/key"):
        fetch(Download(uri="s3://b/folder/", sha256=ANY), cache)
