"""Downloads over HTTP, from a server that breaks, changes, refuses and dawdles."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tasks.domain.errors import AcquisitionError, ConfigurationError, DownloadDigestError
from tasks.domain.sources import Download
from tasks.fetch import fetch, transfer
from tests.support.flaky_server import FlakyServer, Reply

if TYPE_CHECKING:
    from pathlib import Path

BODY = random.Random(0).randbytes(1_500_000)
OTHER = random.Random(1).randbytes(1_500_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
HALF = 700_000

FETCH = """
import sys
from pathlib import Path
from tasks.domain.errors import AcquisitionError
from tasks.domain.sources import Download
from tasks.fetch import fetch
try:
    print(fetch(Download(uri=sys.argv[1], sha256=sys.argv[2]), Path(sys.argv[3])))
except AcquisitionError as error:
    sys.exit(str(error))
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = transfer.Patience(connect_seconds=2, read_seconds=0.5, tries=3, pause_seconds=0.01)
    monkeypatch.setattr(transfer, "PATIENCE", patience)


def download(server: FlakyServer, path: str = "model.bin") -> Download:
    return Download(uri=f"{server.address}/{path}", sha256=DIGEST)


def files_in(cache: Path) -> list[Path]:
    return [each for each in cache.rglob("*") if each.is_file() and each.parent.name != "locks"]


def start_fetch(uri: str, cache: Path, prelude: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", prelude + FETCH, uri, DIGEST, str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- what must work -----------------------------------------------------------------------------


def test_a_file_comes_once_read_only_and_under_its_digest(tmp_path: Path) -> None:
    progress: list[tuple[int, int | None]] = []
    with FlakyServer([Reply(BODY)]) as server:
        path = fetch(download(server), tmp_path, lambda done, total: progress.append((done, total)))
        again = fetch(download(server), tmp_path)

    assert path == again == tmp_path / "sha256" / DIGEST[:2] / DIGEST
    assert path.read_bytes() == BODY
    assert path.stat().st_mode & 0o777 == 0o444
    assert files_in(tmp_path) == [path]
    assert len(server.requests) == 1
    assert progress[-1] == (len(BODY), len(BODY))


@pytest.mark.parametrize(
    ("etag", "condition"),
    [('"one"', '"one"'), ('W/"weak"', None), (None, None)],
    ids=["strong-tag", "weak-tag", "no-tag"],
)
def test_a_broken_connection_is_resumed(
    tmp_path: Path, etag: str | None, condition: str | None
) -> None:
    plan = [Reply(BODY, etag=etag, cut=HALF), Reply(BODY, etag=etag)]
    with FlakyServer(plan) as server:
        path = fetch(download(server), tmp_path)

    assert path.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert server.requests[1].get("If-Range") == condition


def test_a_server_that_knows_no_ranges_is_asked_from_the_start(tmp_path: Path) -> None:
    with FlakyServer([Reply(BODY, cut=HALF), Reply(BODY, ranges=False)]) as server:
        path = fetch(download(server), tmp_path)

    assert path.read_bytes() == BODY
    assert len(server.requests) == 2


@pytest.mark.parametrize("etags", [('"old"', '"new"'), ('W/"old"', 'W/"new"')])
def test_a_file_that_changed_in_between_is_not_mixed(
    tmp_path: Path, etags: tuple[str, str]
) -> None:
    with FlakyServer([Reply(OTHER, etag=etags[0], cut=HALF), Reply(BODY, etag=etags[1])]) as server:
        path = fetch(download(server), tmp_path)

    assert path.read_bytes() == BODY


def test_a_resumed_file_that_proves_bad_is_fetched_anew(tmp_path: Path) -> None:
    plan = [Reply(OTHER, etag=None, cut=HALF), Reply(BODY, etag=None)]
    with FlakyServer(plan) as server:
        path = fetch(download(server), tmp_path)

    assert path.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_an_overloaded_or_silent_server_is_tried_again(tmp_path: Path) -> None:
    plan = [Reply(b"", status=503), Reply(BODY, silence_seconds=1.0), Reply(BODY)]
    with FlakyServer(plan) as server:
        path = fetch(download(server), tmp_path)

    assert path.read_bytes() == BODY
    assert len(server.requests) == 3


def test_a_damaged_cached_copy_is_fetched_anew(tmp_path: Path) -> None:
    with FlakyServer([Reply(BODY)]) as server:
        path = fetch(download(server), tmp_path)
        path.chmod(0o644)
        path.write_bytes(OTHER)
        again = fetch(download(server), tmp_path)

    assert again.read_bytes() == BODY


# --- what must fail, and how --------------------------------------------------------------------


def test_other_bytes_are_refused_and_nothing_of_them_stays(tmp_path: Path) -> None:
    got = hashlib.sha256(OTHER).hexdigest()
    with FlakyServer([Reply(OTHER)]) as server, pytest.raises(DownloadDigestError) as caught:
        fetch(download(server), tmp_path)

    assert str(caught.value) == (
        f"{server.address}/model.bin: other bytes than the recipe pins (expected sha256 {DIGEST}, "
        f"got {got}). Nothing was kept. If the change is meant and the origin is trusted, pin the "
        "new digest in the recipe."
    )
    assert files_in(tmp_path) == []
    assert len(server.requests) == 1


def test_a_connection_that_keeps_breaking_leaves_what_came_for_the_next_call(
    tmp_path: Path,
) -> None:
    cut = 100_000
    with FlakyServer([Reply(BODY, cut=cut)]) as server:
        with pytest.raises(AcquisitionError, match=r"broke 3 times in a row .* 0\.3 MB of 1\.5 MB"):
            fetch(download(server), tmp_path)
        server.plan = [Reply(BODY)]
        path = fetch(download(server), tmp_path)

    assert path.read_bytes() == BODY
    assert server.ranges[-1] == f"bytes={3 * cut}-"
    assert files_in(tmp_path) == [path]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"", status=404), "is not there (the server answered 404 Not Found)"),
        (Reply(b"", status=403), "does not hand it out (it answered 403 Forbidden)"),
        (Reply(b"", status=418), "answered 418 I'm a Teapot instead of a file"),
        (Reply(b"<html>", kind="text/html; charset=utf-8"), "a web page (content type text/html;"),
    ],
    ids=["404", "403", "418", "html"],
)
def test_an_answer_that_is_not_the_file_fails_at_once(
    tmp_path: Path, reply: Reply, message: str
) -> None:
    with FlakyServer([reply]) as server, pytest.raises(AcquisitionError) as caught:
        fetch(download(server), tmp_path)

    assert message in str(caught.value)
    assert len(server.requests) == 1
    assert files_in(tmp_path) == []


def test_an_html_file_that_is_asked_for_as_such_is_welcome(tmp_path: Path) -> None:
    with FlakyServer([Reply(BODY, kind="text/html")]) as server:
        path = fetch(download(server, "page.html"), tmp_path)

    assert path.read_bytes() == BODY


def test_without_network_it_fails_at_once_and_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}/m.bin?token=secret"
        started = time.monotonic()
        with pytest.raises(AcquisitionError) as caught:
            fetch(Download(uri=uri, sha256=DIGEST), tmp_path)

    message = str(caught.value)
    assert time.monotonic() - started < 1
    assert "'127.0.0.1' cannot be reached" in message
    assert f"put the file at {tmp_path / 'sha256' / DIGEST[:2] / DIGEST}" in message
    assert "secret" not in message


def test_an_unknown_host_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(AcquisitionError, match=r"'models\.invalid' cannot be reached"):
        fetch(Download(uri="https://models.invalid/m.bin", sha256=DIGEST), tmp_path)


def test_a_file_put_into_the_cache_by_hand_is_used(tmp_path: Path) -> None:
    place = tmp_path / "sha256" / DIGEST[:2] / DIGEST
    place.parent.mkdir(parents=True)
    place.write_bytes(BODY)

    path = fetch(Download(uri="https://models.invalid/m.bin", sha256=DIGEST), tmp_path)

    assert path == place


def test_an_address_that_is_none_is_a_fault_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not an address"):
        fetch(Download(uri="https://host:port/m.bin", sha256=DIGEST), tmp_path)


def test_a_cache_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file, not a folder")

    with pytest.raises(AcquisitionError, match=r"cannot write .*cache.* \(Not a directory\)"):
        fetch(Download(uri="https://models.invalid/m.bin", sha256=DIGEST), blocked)


# --- several processes, killed processes, full disks --------------------------------------------


def test_two_processes_that_want_the_same_digest_download_it_once(tmp_path: Path) -> None:
    both_are_here = threading.Event()
    with FlakyServer([Reply(BODY, cut=HALF, hold=both_are_here)]) as server:
        processes = [start_fetch(download(server).uri, tmp_path) for _ in range(2)]
        time.sleep(1.0)
        both_are_here.set()
        answers = [process.communicate(timeout=20) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert len(server.requests) == 1


def test_a_killed_download_is_resumed_by_the_next_process(tmp_path: Path) -> None:
    never = threading.Event()
    with FlakyServer([Reply(BODY, cut=HALF, hold=never), Reply(BODY)]) as server:
        process = start_fetch(download(server).uri, tmp_path)
        part = tmp_path / "parts" / DIGEST
        until = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size >= HALF // 2):
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
        kept = part.stat().st_size
        path = fetch(download(server), tmp_path)
        never.set()

    assert 0 < kept <= HALF
    assert server.ranges == [None, f"bytes={kept}-"]
    assert path.read_bytes() == BODY


def test_a_file_size_limit_is_reported_and_the_part_removed(tmp_path: Path) -> None:
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({HALF}, {HALF}))\n"
    with FlakyServer([Reply(BODY)]) as server:
        process = start_fetch(download(server).uri, tmp_path, prelude=limit)
        _, words = process.communicate(timeout=20)

    assert process.returncode == 1
    assert "no room in the cache" in words
    assert "Traceback" not in words
    assert files_in(tmp_path) == []


def test_a_full_disk_is_reported_and_the_part_removed(tmp_path: Path) -> None:
    command = (
        'mount -t tmpfs -o size=1m tmpfs "$0" || exit 99; "$@"; code=$?; '
        'find "$0/parts" "$0/sha256" -type f; exit $code'
    )
    with FlakyServer([Reply(BODY)]) as server:
        fetching = [sys.executable, "-c", FETCH, download(server).uri, DIGEST, str(tmp_path)]
        shell = ["unshare", "-rm", "sh", "-c", command, str(tmp_path), *fetching]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=30, check=False)
    if "No space left" not in done.stderr and (done.returncode == 99 or "unshare" in done.stderr):
        pytest.skip("no right to mount a small disk here")

    assert done.returncode == 1
    assert "no room in the cache" in done.stderr
    assert "(No space left on device). What had come was deleted." in done.stderr
    assert done.stdout == ""


def test_the_parent_does_not_hold_a_file_in_memory(tmp_path: Path) -> None:
    peak = (
        "import atexit, resource\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "import httpx, tasks.fetch.over_http\n"
        "before = peak()\n"
        "atexit.register(lambda: print('grew by', peak() - before))\n"
    )
    big = os.urandom(1 << 20) * 100
    with FlakyServer([Reply(big)]) as server:
        uri, digest = f"{server.address}/big.bin", hashlib.sha256(big).hexdigest()
        done = subprocess.run(
            [sys.executable, "-c", peak + FETCH, uri, digest, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    assert int(done.stdout.rsplit(maxsplit=1)[1]) < 30
