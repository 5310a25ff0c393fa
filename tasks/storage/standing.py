"""Is there anything to do? What ``latest`` names, held against what would be released now.

Three requests where nothing has changed: the alias, its manifest, and one listing of the
version (one for each thousand files), which says size and tag of every file. A tag that the
store gave after the file was read back is not given to other bytes, so nothing else is read.
Where only the tag differs, as in a bucket that was copied elsewhere, the file is read and its
SHA-256 decides.

What this does not see is a byte that went bad on the store's own disk: the listing still says
what was true when it was written. Only reading everything finds that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.artifact import StoredFile
from tasks.domain.errors import (
    ArtifactNotFoundError,
    DigestMismatchError,
    UnreadableDocumentError,
)
from tasks.domain.release import Published, Standing
from tasks.storage.aliases import read_alias
from tasks.storage.places import LATEST
from tasks.storage.whole import named_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.domain.fingerprint import Fingerprint
    from tasks.domain.release import Alias, Manifest, ReleaseFile
    from tasks.storage.store import Entry, ObjectStore


def standing(store: ObjectStore, model: str, fingerprint: Fingerprint) -> Standing:
    """Say whether ``latest`` is what would be released now, and if not, why.

    Args:
        store: Where releases are.
        model: The folder in the bucket.
        fingerprint: What would be released now.

    Returns:
        With ``published`` set if the fingerprint is the same and every file is in the store
        as it was published; else with ``changes`` in words. Neither where nothing is released.

    Raises:
        StorageError: The store could not be asked, or the alias is not one.
    """
    alias = read_alias(store, model, LATEST)
    if alias is None:
        return Standing(fingerprint=fingerprint)
    try:
        manifest, file = named_manifest(store, model, alias)
    except (ArtifactNotFoundError, DigestMismatchError, UnreadableDocumentError) as error:
        unusable = f"the manifest is not usable: {error}"
        return Standing(fingerprint=fingerprint, version=alias.version, changes=(unusable,))
    changes = fingerprint.changes_since(manifest.fingerprint) or tuple(_damages(store, manifest))
    return Standing(
        fingerprint=fingerprint,
        version=alias.version,
        changes=changes,
        files=0 if changes else len(manifest.files),
        published=None if changes else _published(alias, manifest, file),
    )


def _published(alias: Alias, manifest: Manifest, file: StoredFile) -> Published:
    return Published(
        model=alias.model,
        version=alias.version,
        manifest=file,
        latest=True,
        size_bytes=sum(each.size_bytes for each in manifest.files),
    )


def _damages(store: ObjectStore, manifest: Manifest) -> Iterator[str]:
    """Say of each file that is not in the store as it was published what is wrong with it."""
    root = f"{manifest.model}/{manifest.version}/"
    entries = {each.key: each for each in store.entries(root)}
    for file in manifest.files:
        damage = _damage(store, root, file, entries.get(root + file.path))
        if damage:
            yield f"{file.path} {damage}"


def _damage(store: ObjectStore, root: str, file: ReleaseFile, entry: Entry | None) -> str:
    if entry is None:
        return "is gone"
    if entry.size_bytes != file.size_bytes:
        return f"has {entry.size_bytes:,} bytes (expected {file.size_bytes:,})"
    if entry.etag == file.etag:
        return ""
    stored = StoredFile(key=root + file.path, sha256=file.sha256, size_bytes=file.size_bytes)
    try:
        store.check(stored)
    except ArtifactNotFoundError:
        return "is gone"
    except DigestMismatchError:
        return "holds other bytes"
    return ""
