"""A run's folder of working files, which goes with the run, however that ends."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

_PREFIX = "conveyor-"
_LOCK = ".lock"


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Lend an empty folder below ``parent`` (absent: the system's own), and remove it.

    A process that is killed leaves its folder behind, with gigabytes in it; the next one on the
    machine finds it by its lock, which nobody holds any more, and removes it.
    """
    root = parent or Path(tempfile.gettempdir())
    for left in root.glob(f"{_PREFIX}*"):
        _remove_if_left(left)
    new = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=root))
    with (new / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # it gets the name by which others look for it once it is held
        folder = new.rename(root / new.name[1:])
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    # one without a lock is not ours
    with suppress(OSError), (folder / _LOCK).open() as lock:
        if _is_free(lock):
            shutil.rmtree(folder, ignore_errors=True)


def _is_free(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
