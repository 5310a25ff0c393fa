"""Which versions of a model there are, and which one is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.errors import ArtifactNotFoundError, StorageError
from tasks.domain.versions import VersionInfo
from tasks.storage.aliases import read_alias
from tasks.storage.garbage import look
from tasks.storage.places import alias_key
from tasks.storage.publishing import read_release

if TYPE_CHECKING:
    from datetime import datetime

    from tasks.domain.artifact import Slug
    from tasks.storage.inventory import Inventory
    from tasks.storage.store import ObjectStore


def list_versions(store: Inventory, model: Slug) -> tuple[VersionInfo, ...]:
    """Return every number in use, the highest first.

    Raises:
        ArtifactNotFoundError: There is no such model.
        StorageError: One of its documents could not be read.
    """
    (seen,) = look(store, model).models
    if seen.unreadable is not None:
        raise StorageError(seen.unreadable)
    if not seen.versions:
        message = f"{store.url(model)}: no version of this model is stored. Is its name right?"
        raise ArtifactNotFoundError(message)
    return tuple(
        VersionInfo(
            version=each.version,
            state=each.state,
            created=_created(store, model, each.version) if each.state == "whole" else None,
            size_bytes=each.size_bytes,
            needed=seen.needed.get(each.version, ""),
        )
        for each in sorted(seen.versions, key=lambda each: -each.version)
    )


def version_meant(store: ObjectStore, model: Slug, text: str) -> int:
    """Return the version that a number, or the name of an alias, stands for.

    Raises:
        ArtifactNotFoundError: Nobody has set this alias.
    """
    if text.isascii() and text.isdecimal():
        return int(text)
    alias = read_alias(store, model, text)
    if alias is None:
        where = store.url(alias_key(model, text))
        raise ArtifactNotFoundError(f"{where}: no such alias. Give a version or an alias.")
    return alias.version


def _created(store: ObjectStore, model: Slug, version: int) -> datetime | None:
    try:
        return read_release(store, model, version).created
    except ArtifactNotFoundError:
        return None  # removed meanwhile
