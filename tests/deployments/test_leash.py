"""What is on a leash ends with its owner, whatever the owner dies of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deployments.processes import Leashed, StackError, free_port, wait_until_healthy

SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
# it ignores SIGTERM, starts a child in a session of its own, and tells both ids
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
OWNER = """
import sys, threading, time
from pathlib import Path
from deployments.processes import Leashed
def start():
    global leashed
    leashed = Leashed("stubborn", [sys.executable, "-c", sys.argv[1]], log=Path(sys.argv[2]),
                      environment={}, grace_seconds=0.2)
thread = threading.Thread(target=start)
thread.start()
thread.join()
time.sleep(600)
"""


def ids_in(log: Path, count: int = 2) -> list[int]:
    """Wait for the process ids that a program prints."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ids = log.read_text().split() if log.exists() else []
        if len(ids) == count:
            return [int(each) for each in ids]
        time.sleep(0.05)
    pytest.fail(f"no ids in {log}")


def gone(ids: list[int], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(each) for each in ids):
            return True
        time.sleep(0.05)
    return False


def stubborn(log: Path, grace_seconds: float = 0.2) -> Leashed:
    command = [sys.executable, "-c", STUBBORN]
    return Leashed("x", command, log=log, environment={}, grace_seconds=grace_seconds)


def test_the_exit_code_comes_through(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('hello'); sys.exit(3)"]

    with Leashed("x", command, log=tmp_path / "log", environment={}) as leashed:
        assert leashed.wait() == 3

    assert (tmp_path / "log").read_text() == "hello\n"


def test_letting_go_ends_a_process_that_ignores_sigterm_and_its_runaway_child(
    tmp_path: Path,
) -> None:
    with stubborn(tmp_path / "log"):
        ids = ids_in(tmp_path / "log")

    assert gone(ids, seconds=0.5)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_owners_death_ends_everything(how: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "log"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, STUBBORN, str(log)])
    ids = ids_in(log)

    owner.send_signal(how)
    owner.wait()

    assert gone(ids)


def test_a_thread_of_the_owner_may_end_without_harm(tmp_path: Path) -> None:
    log = tmp_path / "log"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, STUBBORN, str(log)])
    ids = ids_in(log)

    time.sleep(0.5)

    assert all(psutil.pid_exists(each) for each in ids)
    owner.kill()
    owner.wait()
    assert gone(ids)


def test_a_child_that_outlives_its_command_is_ended_too(tmp_path: Path) -> None:
    leaves = STUBBORN.replace("time.sleep(600)", "sys.exit(0)")
    command = [sys.executable, "-c", leaves]

    with Leashed("x", command, log=tmp_path / "log", environment={}) as leashed:
        code = leashed.wait()

    assert code == 0
    assert gone(ids_in(tmp_path / "log"), seconds=0.5)


def test_a_killed_leash_takes_its_command_along(tmp_path: Path) -> None:
    leashed = stubborn(tmp_path / "log")
    ids = ids_in(tmp_path / "log")

    leashed._process.kill()
    leashed.wait()

    assert gone(ids[:1])
    os.kill(ids[1], signal.SIGKILL)  # its own child is nobody's then


def test_what_keeps_a_descriptor_keeps_it_to_the_end(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    leashed = Leashed("x", SLEEPER, log=tmp_path / "log", environment={}, keep=(writer,))
    os.close(writer)
    os.set_blocking(reader, False)

    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    leashed.let_go()
    leashed.wait()

    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_server_that_dies_at_its_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no database')"]
    url = f"http://127.0.0.1:{free_port()}/health"

    with (
        Leashed("prefect-server", command, log=tmp_path / "log", environment={}) as server,
        pytest.raises(StackError, match=r"prefect-server: ended by itself(.|\n)*no database"),
    ):
        wait_until_healthy(url, server, 10)


def test_a_server_that_never_answers_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/health"

    with (
        Leashed("x", SLEEPER, log=tmp_path / "log", environment={}) as server,
        pytest.raises(StackError, match="no answer from"),
    ):
        wait_until_healthy(url, server, 0.5)
