"""The port to the object store."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from tasks.domain.artifact import StoredFile


class StoredText(NamedTuple):
    """A small object's content, and the tag that a compare-and-swap needs."""

    content: bytes
    etag: str


class Entry(NamedTuple):
    """What a listing says of one object."""

    key: str
    size_bytes: int
    etag: str
    """Changes when the content does. A copy of the object elsewhere may have another one."""
    modified: datetime
    """By the store's clock."""


class ObjectStore(Protocol):
    """A store whose files are written once and never change; only small documents move.

    Every implementation must pass ``tests/contract/test_object_store.py``. Any method may
    raise ``StorageUnavailableError`` (the store did not answer; worth another try) and
    ``StorageError`` (it refused: bucket missing, credentials wrong, disk full …).
    """

    def url(self, key: str) -> str:
        """Return ``s3://bucket/key``."""
        ...

    def put(self, path: Path, key: str, content_type: str | None = None) -> StoredFile:
        """Upload the file at ``path`` under ``key``; putting equal content again is no error.

        The file is streamed, never read whole.

        Raises:
            DigestMismatchError: ``key`` already holds other content.
        """
        ...

    def get(self, file: StoredFile, path: Path) -> None:
        """Download ``file`` to ``path``; nothing is left there if it fails.

        Raises:
            ArtifactNotFoundError: No object has this key.
            DigestMismatchError: The object is not the one that was recorded.
        """
        ...

    def take(self, key: str, path: Path) -> None:
        """Download whatever ``key`` holds, to ``path``; the caller must prove it.

        The file is streamed, never read whole; nothing is left there if it fails.

        Raises:
            ArtifactNotFoundError: No object has this key.
        """
        ...

    def check(self, file: StoredFile) -> None:
        """Read ``file`` back from the store and compare its SHA-256; keep nothing.

        Raises:
            ArtifactNotFoundError: No object has this key.
            DigestMismatchError: The object is not the one that was recorded.
        """
        ...

    def read(self, key: str) -> StoredText:
        """Return a small document.

        Raises:
            ArtifactNotFoundError: No object has this key.
        """
        ...

    def create(self, key: str, content: bytes, content_type: str = "application/json") -> bool:
        """Write a small document if ``key`` is free; return whether it was."""
        ...

    def replace(
        self, key: str, content: bytes, etag: str, content_type: str = "application/json"
    ) -> bool:
        """Write a small document if ``key`` still has ``etag``; return whether it had."""
        ...

    def link(self, key: str, seconds: int) -> str:
        """Return a URL by which anybody may read ``key`` for ``seconds``, without credentials.

        Nothing is asked of the store: a link to a key without an object opens nothing.
        """
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield every key that begins with ``prefix``, in no promised order."""
        ...

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield what is stored below ``prefix``, many objects to a request, in no promised order.

        The tag is the one that ``read`` returns.
        """
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names directly below ``prefix`` that hold objects.

        ``prefix`` ends with ``/``, or is empty for the whole bucket.
        """
        ...

    def remove(self, prefix: str) -> int:
        """Delete every object whose key begins with ``prefix``; return how many."""
        ...
