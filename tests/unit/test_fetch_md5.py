"""Downloads that are pinned by the publisher's MD5: the same care as with SHA-256."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest

from tasks.domain.errors import AcquisitionError, DownloadDigestError
from tasks.domain.sources import Download
from tasks.fetch import fetch, transfer
from tests.support.flaky_server import FlakyServer, Reply

if TYPE_CHECKING:
    from pathlib import Path

BODY = random.Random(3).randbytes(1_500_000)
OTHER = random.Random(4).randbytes(1_500_000)
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
HALF = 700_000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = transfer.Patience(connect_seconds=2, read_seconds=0.5, tries=3, pause_seconds=0.01)
    monkeypatch.setattr(transfer, "PATIENCE", patience)


def download(server: FlakyServer) -> Download:
    return Download(uri=f"{server.address}/weights.h5", md5=MD5)


def place_in(cache: Path) -> Path:
    return cache / "md5" / MD5[:2] / MD5


def files_in(cache: Path) -> list[Path]:
    return [each for each in cache.rglob("*") if each.is_file() and each.parent.name != "locks"]


def test_the_right_bytes_come_once_and_stand_under_their_md5(tmp_path: Path) -> None:
    with FlakyServer([Reply(BODY)]) as server:
        path = fetch(download(server), tmp_path)
        again = fetch(download(server), tmp_path)

    assert path == again == place_in(tmp_path)
    assert path.read_bytes() == BODY
    assert files_in(tmp_path) == [path]
    assert len(server.requests) == 1


def test_other_bytes_are_refused_and_nothing_of_them_stays(tmp_path: Path) -> None:
    got = hashlib.md5(OTHER, usedforsecurity=False).hexdigest()
    with FlakyServer([Reply(OTHER)]) as server, pytest.raises(DownloadDigestError) as caught:
        fetch(download(server), tmp_path)

    assert f"(expected md5 {MD5}, got {got})" in str(caught.value)
    assert files_in(tmp_path) == []


def test_a_broken_connection_is_resumed(tmp_path: Path) -> None:
    with FlakyServer([Reply(BODY, cut=HALF), Reply(BODY)]) as server:
        path = fetch(download(server), tmp_path)

    assert path.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_what_an_earlier_call_left_is_gone_on_with(tmp_path: Path) -> None:
    cut = 100_000
    with FlakyServer([Reply(BODY, cut=cut)]) as server:
        with pytest.raises(AcquisitionError, match="broke 3 times in a row"):
            fetch(download(server), tmp_path)
        server.plan = [Reply(BODY)]
        path = fetch(download(server), tmp_path)

    assert path.read_bytes() == BODY
    assert server.ranges[-1] == f"bytes={3 * cut}-"


def test_a_damaged_cached_copy_is_fetched_anew(tmp_path: Path) -> None:
    with FlakyServer([Reply(BODY)]) as server:
        path = fetch(download(server), tmp_path)
        path.chmod(0o644)
        path.write_bytes(OTHER)
        again = fetch(download(server), tmp_path)

    assert again.read_bytes() == BODY


def test_a_file_put_into_the_cache_by_hand_is_used(tmp_path: Path) -> None:
    place = place_in(tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(BODY)

    assert fetch(Download(uri="https://models.invalid/weights.h5", md5=MD5), tmp_path) == place


def test_without_network_it_says_where_to_put_the_file(tmp_path: Path) -> None:
    with pytest.raises(AcquisitionError) as caught:
        fetch(Download(uri="https://models.invalid/weights.h5", md5=MD5), tmp_path)

    assert f"put the file at {place_in(tmp_path)}" in str(caught.value)
    assert "copy with the same md5" in str(caught.value)


def test_a_folder_is_never_known_by_an_md5(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "weights.h5").write_bytes(BODY)

    with pytest.raises(DownloadDigestError):
        fetch(Download(uri=folder.as_uri(), md5=MD5), tmp_path / "cache")
