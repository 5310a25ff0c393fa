"""A leash: run a command, and end it and all it started when the owner lets go.

Started by ``deployments.processes`` as a script, with the read end of a pipe as standard input.
The pipe closes when the owner closes it, or when the owner is gone, however it died; no
signal needs to arrive for that. What the command started and left behind comes to this
process (it is a "subreaper"), so nothing slips the leash. Only the standard library, so that
it starts in a few hundredths of a second.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

# Source of both: the manual page of prctl, section 2
_SET_PARENT_DEATH_SIGNAL = 1
_SET_CHILD_SUBREAPER = 36

_DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


def leashed(command: list[str], grace_seconds: float = 5.0) -> list[str]:
    """Return the command that runs ``command`` on a leash.

    Start it with ``stdin=subprocess.PIPE`` and ``start_new_session=True``, and keep that pipe.

    Args:
        command: The program and its arguments.
        grace_seconds: How long it may take to end after SIGTERM, before it is killed.
    """
    return [sys.executable, "-I", "-S", __file__, str(grace_seconds), *command]


def _prctl(option: int, value: int) -> None:
    """Ask the kernel; elsewhere than on Linux there is nobody to ask."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _before_command() -> None:
    """Give the command the signal handlers of a command started at a terminal.

    A shell's background job ignores SIGINT and passes that on; a Prefect worker that ignores
    SIGINT does not stop. The parent's death signal is for a leash that is itself killed: it
    goes by the parent's thread, and this process has only one.
    """
    for each in _DEFAULT_SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _children() -> list[int]:
    """Return the ids of this process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            # the name, in brackets, may hold anything; the parent is the second field after it
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def _kill_descendants() -> None:
    """Kill children until there are none; a dead child's own children become ours."""
    while True:
        for child in _children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _listen_for_signals() -> int:
    """Return a descriptor from which the numbers of arriving signals can be read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for each in (signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the owner decides what they mean
    for each in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(each, lambda *_: None)
    return reader


def _wait_for_end_or_release(command: subprocess.Popen[bytes], reader: int) -> None:
    """Return when the command has ended, or the owner let go."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(reader, selectors.EVENT_READ)
        while command.poll() is None:
            ready = {key.fd for key, _ in selector.select()}
            if reader in ready and signal.SIGTERM in os.read(reader, 4096):
                return
            if 0 in ready and not os.read(0, 4096):
                return


def main(grace_seconds: float, arguments: list[str]) -> int:
    """Run ``arguments`` until they end or the owner lets go; return their exit code.

    Args:
        grace_seconds: How long the command may take to end after SIGTERM, before it is killed.
        arguments: The command.
    """
    reader = _listen_for_signals()
    _prctl(_SET_CHILD_SUBREAPER, 1)
    command = subprocess.Popen(  # noqa: S603 - to run what it is given is its purpose
        arguments,
        stdin=subprocess.DEVNULL,
        preexec_fn=_before_command,  # noqa: PLW1509 - this process has no second thread
    )
    _wait_for_end_or_release(command, reader)
    if command.poll() is None:
        command.terminate()
        deadline = time.monotonic() + grace_seconds
        while command.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    code = command.returncode
    if code is None:
        command.kill()
    _kill_descendants()
    if code is None:
        return 128 + signal.SIGKILL
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
