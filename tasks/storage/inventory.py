"""What upkeep needs of a store beyond publishing: sizes and times, broken uploads, its clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from tasks.storage.store import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime


class Upload(NamedTuple):
    """A file that began to come in parts, and did not become an object yet."""

    key: str
    id: str
    begun: datetime
    """By the store's clock."""


class Inventory(ObjectStore, Protocol):
    """An object store that can be counted, swept and checked.

    All times are the store's own, so that no decision compares two machines' clocks.
    """

    def now(self) -> datetime:
        """Return the time by the store's clock, to the second."""
        ...

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield every unfinished upload whose key begins with ``prefix``.

        MinIO lists those of one exact key only, and gives up its unfinished uploads by itself.
        """
        ...

    def abort(self, upload: Upload) -> None:
        """Give up an upload and its parts; one that is gone already is no error."""
        ...

    def delete(self, keys: Iterable[str], below: str) -> None:
        """Delete exactly these keys, then the folders below ``below`` that are empty now.

        A key that is gone already is no error; nothing else is touched, whatever was
        written meanwhile.

        Raises:
            StorageError: One of them could not be deleted.
        """
        ...
