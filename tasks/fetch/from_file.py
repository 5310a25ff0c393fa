"""``file:``, a file or folder of this machine; it is copied, so that it cannot change later."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tasks.domain.errors import AcquisitionError, ConfigurationError
from tasks.fetch.cache import anew

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.fetch.transfer import Wanted


def download(wanted: Wanted) -> None:
    """Copy ``wanted`` to its part.

    Raises:
        AcquisitionError: It is not there or cannot be read.
        ConfigurationError: The uri names another machine, or no absolute path.
    """
    source = path_of(wanted.uri)
    with anew(wanted.part):
        try:
            pairs = list(_pairs(wanted.uri, source, wanted.part))
            total = sum(each.stat().st_size for each, _ in pairs)
        except OSError as error:
            message = f"{wanted.uri}: cannot be read ({error.strerror}). Check the recipe's uri."
            raise AcquisitionError(message) from error
        done = 0
        for each, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(wanted.uri, each, target)
            done += target.stat().st_size
            if wanted.on_progress:
                wanted.on_progress(done, total)


def path_of(uri: str) -> Path:
    """Return the path that a ``file:`` uri stands for.

    Raises:
        ConfigurationError: The uri names another machine, or no absolute path.
    """
    parts = urlsplit(uri)
    path = Path(unquote(parts.path))
    if parts.netloc not in {"", "localhost"} or not path.is_absolute():
        message = f"{uri}: not a file of this machine (expected file:///absolute/path)."
        raise ConfigurationError(message)
    return path


def _pairs(uri: str, source: Path, part: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each file to copy, and where to."""
    if not source.is_dir():
        yield source, part
        return
    for each in source.rglob("*"):
        if each.is_symlink() and each.is_dir():
            message = f"{uri}: '{each}' links to a folder. Put the folder itself there."
            raise AcquisitionError(message)
        if each.is_file():
            yield each, part / each.relative_to(source)


def _copy(uri: str, source: Path, target: Path) -> None:
    try:
        file = source.open("rb")
    except OSError as error:
        message = f"{uri}: cannot be read ({error.strerror}). Check its permissions."
        raise AcquisitionError(message) from error
    with file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
