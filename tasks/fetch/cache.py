"""The cache: files and folders named by their own digest, shared by processes.

``sha256/<aa>/<digest>`` (or ``md5/…``) is whole and checked, since it got this name by one rename.
``parts/<digest>`` is on its way, and belongs to who holds ``locks/<digest>``.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tasks.domain.artifact import sha256_of_tree
from tasks.domain.errors import AcquisitionError, DownloadDigestError
from tasks.fetch.wording import redacted
from tasks.storage.digest import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tasks.domain.digest import Digest

_log = logging.getLogger(__name__)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def place_of(cache: Path, digest: Digest) -> Path:
    """Return where the cache keeps what has this digest."""
    return cache / digest.algorithm / digest.hexadecimal[:2] / digest.hexadecimal


def digest_like(wanted: Digest, path: Path) -> str:
    """Return the digest of a file, computed as ``wanted`` is.

    A folder has but one digest, by ``sha256_of_tree``'s rule; nobody publishes another.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, wanted.hasher).hexdigest()
    files = (each for each in path.rglob("*") if each.is_file())
    return sha256_of_tree((each.relative_to(path).as_posix(), sha256_of(each)) for each in files)


def kept(cache: Path, digest: Digest, uri: str, bring: Callable[[Path], None]) -> Path:
    """Return the cache's copy of ``digest``; let ``bring`` write it if there is none.

    Args:
        cache: Folder of the cache; made if need be.
        digest: Digest of the file or folder.
        uri: What to call it in an error.
        bring: Writes the file or folder to the path it is given. What it leaves there when it
            fails is given to the next ``bring``, which may go on with it.

    Raises:
        DownloadDigestError: ``bring`` wrote something else, which is deleted.
        AcquisitionError: ``bring`` raised it, or the disk has no room.
    """
    place, part = place_of(cache, digest), cache / "parts" / digest.hexadecimal
    with _disk_faults_in_words(part, uri):
        if _holds(place, digest):
            return place
        with _locked(cache / "locks" / digest.hexadecimal, uri):
            if _holds(place, digest):
                return place
            _make_room(place)
            part.parent.mkdir(parents=True, exist_ok=True)
            bring(part)
            got = digest_like(digest, part)
            if got != digest.hexadecimal:
                discard(part)
                message = (
                    f"{redacted(uri)}: other bytes than the recipe pins (expected {digest}, "
                    f"got {got}). Nothing was kept. If the change is meant and the origin is "
                    "trusted, pin the new digest in the recipe."
                )
                raise DownloadDigestError(message)
            _seal(part)
            place.parent.mkdir(parents=True, exist_ok=True)
            part.rename(place)
            remove(note_of(part))
    return place


@contextmanager
def anew(part: Path) -> Iterator[None]:
    """Start from nothing, and leave nothing if the work fails."""
    discard(part)
    try:
        yield
    except BaseException:
        discard(part)
        raise


def note_of(part: Path) -> Path:
    """Return where a transfer notes what its part is a part of."""
    return part.with_suffix(".json")


def discard(part: Path) -> None:
    """Delete a part and its note, if they are there."""
    remove(part)
    remove(note_of(part))


def remove(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _holds(place: Path, digest: Digest) -> bool:
    return place.exists() and digest_like(digest, place) == digest.hexadecimal


def _make_room(place: Path) -> None:
    """Delete what lies there but is not what its name says, as after a power cut."""
    if place.exists():
        _log.warning("%s: the cached copy is damaged and is fetched anew", place)
        remove(place)


def _seal(path: Path) -> None:
    """Take away the right to write, from files alone: people must be able to delete a cache."""
    for each in path.rglob("*") if path.is_dir() else (path,):
        if each.is_file():
            each.chmod(0o444)


@contextmanager
def _locked(path: Path, uri: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("%s: another process is fetching it; waiting for that", redacted(uri))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_faults_in_words(part: Path, uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or part
        message = f"{redacted(uri)}: cannot write {where} ({error.strerror or error})."
        if error.errno in _NO_ROOM:
            discard(part)
            message = (
                f"{redacted(uri)}: no room in the cache {part.parent.parent} ({error.strerror}). "
                "What had come was deleted. Free some space, or set CONVEYOR_CACHE to another disk."
            )
        raise AcquisitionError(message) from error
