"""Processes that cannot outlive their owner, and what is needed to talk to them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

import httpx

from deployments.leash import leashed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

_LAST_LINES = 12


class StackError(Exception):
    """The local stack did not come up, or did not stay up."""


class Leashed:
    """A command on a leash; see ``deployments.leash``.

    It ends with this object's owner, however that ends, and so does all it started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        grace_seconds: float = 3.0,
        keep: tuple[int, ...] = (),
    ) -> None:
        """Start ``command``.

        Args:
            name: What errors call it.
            command: The program and its arguments.
            log: Where its output goes; begun anew.
            environment: All of its environment.
            grace_seconds: How long it may take to end after SIGTERM.
            keep: File descriptors that the leash holds open until all is over, such as a lock's.
        """
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - its callers are in this package
                leashed([*command], grace_seconds),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(environment),
                pass_fds=keep,
                start_new_session=True,  # Ctrl-C is for the owner alone
            )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the command and all it started."""
        self.let_go()
        self.wait()

    @property
    def returncode(self) -> int | None:
        """The command's exit code, once it has ended; 128 + n for signal n."""
        return self._process.poll()

    def let_go(self) -> None:
        """Begin to end the command; do not wait for it."""
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def wait(self) -> int:
        """Return the exit code when everything has ended."""
        return self._process.wait()

    def raise_if_ended(self) -> None:
        """Raise if the command has ended although it should not.

        Raises:
            StackError: It has ended; with its last lines.
        """
        if (code := self.returncode) is not None:
            message = (
                f"{self.name}: ended by itself (exit code {code}). Its last lines, from "
                f"{self.log}:\n{self.last_lines()}"
            )
            raise StackError(message)

    def last_lines(self) -> str:
        """Return the end of the log, indented."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"  | {line[:300]}" for line in lines[-_LAST_LINES:])


def free_port(preferred: int | None = None) -> int:
    """Return a loopback port that is free now, ``preferred`` if that is."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(candidate.getsockname()[1])
    raise StackError("127.0.0.1: no free port. Close some programs, then run it again.")


def wait_until_healthy(url: str, process: Leashed, timeout_seconds: float) -> None:
    """Return once ``url`` answers 200.

    Raises:
        StackError: ``process`` ended, or the time is over.
    """
    deadline = time.monotonic() + timeout_seconds
    # whatever proxy the user has, it is not for loopback
    with httpx.Client(trust_env=False, timeout=2) as client:
        while time.monotonic() < deadline:
            process.raise_if_ended()
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            time.sleep(0.1)
    message = (
        f"{process.name}: no answer from {url} within {timeout_seconds:.0f} s. Its last lines, "
        f"from {process.log}:\n{process.last_lines()}"
    )
    raise StackError(message)
