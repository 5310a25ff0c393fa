"""One owner of a folder at a time, and the processes that it started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from deployments.processes import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOCK_SECONDS = 20.0


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[int]:
    """Hold the folder's lock; the stack's processes hold it too, until the last has ended."""
    path = folder / "lock"
    with path.open("a+") as file:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _try_lock(file.fileno()):
            owner = path.read_text().strip()
            if _alive(owner) or time.monotonic() > deadline:
                message = (
                    f"{folder}: another stack runs there (process {owner or 'unknown'}). Use "
                    f"that one (source {folder / 'env'}), or stop it with Ctrl-C in its terminal "
                    f"(or: kill {owner})."
                )
                raise StackError(message)
            say("waiting for the last stack to end")
            time.sleep(0.2)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield file.fileno()
        finally:
            file.truncate(0)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(process: str) -> bool:
    if not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
