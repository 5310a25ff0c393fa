"""Holds: whoever needs a version says so, and collecting garbage spares it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tasks.domain.errors import AliasConflictError, ArtifactNotFoundError
from tasks.domain.release import Hold
from tasks.storage.documents import read_document
from tasks.storage.places import HOLDS, MANIFEST, hold_key, release_folder, version_of
from tasks.storage.whole import require_whole

if TYPE_CHECKING:
    from tasks.domain.artifact import Slug
    from tasks.storage.inventory import Inventory
    from tasks.storage.store import ObjectStore


def hold(store: Inventory, model: Slug, version: int, *, by: str, reason: str) -> Hold:
    """Hold a whole version; one that is held already stays held as it was.

    Raises:
        ArtifactNotFoundError: There is no such version.
        AliasConflictError: It was removed meanwhile.
        StorageError: It is not whole, or the store refused.
    """
    require_whole(store, model, version)
    key = hold_key(model, version)
    held = Hold(model=model, version=version, by=by, reason=reason, held=datetime.now(UTC))
    if not store.create(key, held.model_dump_json(indent=2).encode()):
        held = read_document(Hold, store, key)
    try:
        store.read(f"{release_folder(model, version)}{MANIFEST}")
    except ArtifactNotFoundError as error:
        store.delete([key], f"{model}/{HOLDS}/")
        message = f"{store.url(release_folder(model, version))}: was removed while you held it."
        raise AliasConflictError(f"{message} Choose another version.") from error
    return held


def release_hold(store: Inventory, model: Slug, version: int) -> Hold:
    """Hold a version no longer; return the hold that was.

    Raises:
        ArtifactNotFoundError: Nobody holds it.
        StorageError: The hold could not be read or deleted.
    """
    key = hold_key(model, version)
    held = read_document(Hold, store, key)
    store.delete([key], f"{model}/{HOLDS}/")
    return held


def read_holds(store: ObjectStore, model: Slug) -> dict[int, Hold]:
    """Return the holds of a model by version.

    Raises:
        NewerSchemaError: Only a newer version of this program can read one of them.
        StorageError: One of them could not be read.
    """
    folder = f"{model}/{HOLDS}/"
    keys = [key for key in store.keys(folder) if key.endswith(".json")]
    versions = (version_of(key.removeprefix(folder).removesuffix(".json")) for key in keys)
    found = {}
    for version in sorted(version for version in versions if version is not None):
        try:
            found[version] = read_document(Hold, store, hold_key(model, version))
        except ArtifactNotFoundError:
            continue  # released since it was listed
    return found
