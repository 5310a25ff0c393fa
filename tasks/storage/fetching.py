"""A published release on this disk, as the bucket has it: to be proven, not yet believed."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tasks.domain.errors import ArtifactNotFoundError, VerificationError
from tasks.domain.release import Alias
from tasks.storage.documents import read_document
from tasks.storage.sealing import NOTES
from tasks.storage.verifying import Expected

if TYPE_CHECKING:
    from tasks.storage.store import ObjectStore


def find_release(store: ObjectStore, model: str, which: str) -> Expected:
    """Say which release a version number, or the name of an alias, stands for.

    Raises:
        ArtifactNotFoundError: There is no such alias.
        StorageError: The alias cannot be read.
    """
    if which.isdecimal():
        return Expected(model, int(which))
    alias = read_document(Alias, store, f"{model}/aliases/{which}.json")
    return Expected(model, alias.version, alias)


def fetch_release(store: ObjectStore, model: str, version: int, folder: Path) -> None:
    """Download every file of a release, whatever it holds.

    Raises:
        ArtifactNotFoundError: There is no such version.
        VerificationError: A key would be a file outside ``folder``.
        StorageError: It could not be read.
    """
    root = f"{model}/{version}/"
    found = False
    for key in store.keys(root):
        path = key.removeprefix(root)
        if path in NOTES or not path or path.endswith("/"):
            continue
        found = True
        parts = PurePosixPath(path).parts
        if str(PurePosixPath(path)) != path or ".." in parts or path.startswith("/"):
            message = f"{store.url(key)}: is not a file's path below a release. It was added."
            raise VerificationError(message)
        store.take(key, folder / path)
    if not found:
        message = f"{store.url(root)}: nothing is published there. Was it another bucket?"
        raise ArtifactNotFoundError(message)
