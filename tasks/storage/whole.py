"""Whether a version is whole: its manifest is there, and so is every file that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.artifact import StoredFile
from tasks.domain.errors import DigestMismatchError, StorageError
from tasks.domain.release import Manifest, Move
from tasks.storage.digest import sha256_of_bytes
from tasks.storage.documents import parse_document
from tasks.storage.places import MANIFEST, release_folder

if TYPE_CHECKING:
    from tasks.storage.inventory import Inventory
    from tasks.storage.store import ObjectStore


def named_manifest(store: ObjectStore, model: str, move: Move) -> tuple[Manifest, StoredFile]:
    """Return the manifest that an alias was moved to, and the file that it is.

    Raises:
        ArtifactNotFoundError: It is not there.
        DigestMismatchError: It is another one.
        StorageError: It could not be read.
    """
    key = f"{release_folder(model, move.version)}{MANIFEST}"
    content = store.read(key).content
    if (got := sha256_of_bytes(content)) != move.manifest_sha256:
        raise DigestMismatchError.of(store.url(key), expected=move.manifest_sha256, got=got)
    file = StoredFile(key=key, sha256=got, size_bytes=len(content))
    return parse_document(Manifest, content, store.url(key)), file


def require_whole(store: Inventory, model: str, version: int) -> str:
    """Return the digest of a version's manifest, once its files are listed in their sizes.

    It costs two requests; ``tasks.storage.fsck`` reads the files themselves.

    Raises:
        ArtifactNotFoundError: There is no such version.
        StorageError: A file is missing or of another size.
    """
    folder = release_folder(model, version)
    content = store.read(f"{folder}{MANIFEST}").content
    manifest = parse_document(Manifest, content, store.url(f"{folder}{MANIFEST}"))
    sizes = {each.key: each.size_bytes for each in store.entries(folder)}
    for file in manifest.files:
        got = sizes.get(f"{folder}{file.path}")
        if got != file.size_bytes:
            found = "no object" if got is None else f"{got:,} bytes"
            message = (
                f"{store.url(f'{folder}{file.path}')}: is not what the manifest names (expected "
                f"{file.size_bytes:,} bytes, got {found}). No alias moves to a version that is "
                f"not whole; 'conveyor fsck {model}' lists all that is wrong."
            )
            raise StorageError(message)
    return sha256_of_bytes(content)
