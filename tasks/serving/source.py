"""Where a release is read from: the bucket, or a folder that somebody copied it to."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tasks.domain.artifact import StoredFile
from tasks.domain.errors import ArtifactNotFoundError, ConfigurationError, DigestMismatchError
from tasks.domain.release import Alias, Manifest
from tasks.storage.digest import sha256_of
from tasks.storage.documents import parse_document, read_document
from tasks.storage.places import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.artifact import ModelFormat
    from tasks.domain.release import PublishedFormat, ReleaseFile
    from tasks.storage.store import ObjectStore


class ReleaseSource(Protocol):
    """A release, and a way to its files."""

    @property
    def manifest(self) -> Manifest:
        """What the release holds."""
        ...

    def fetch(self, file: ReleaseFile, path: Path) -> None:
        """Write one file to ``path``.

        Raises:
            ArtifactNotFoundError: It is not there.
            DigestMismatchError: It is not the file that the manifest names.
        """
        ...


@dataclass(frozen=True)
class BucketRelease:
    """A release in the bucket."""

    store: ObjectStore
    manifest: Manifest

    def fetch(self, file: ReleaseFile, path: Path) -> None:
        """Download one file; see ``ReleaseSource.fetch``."""
        key = f"{self.manifest.model}/{self.manifest.version}/{file.path}"
        stored = StoredFile(key=key, sha256=file.sha256, size_bytes=file.size_bytes)
        self.store.get(stored, path)


@dataclass(frozen=True)
class FolderRelease:
    """A release in a folder: ``manifest.json`` and what it names."""

    folder: Path
    manifest: Manifest

    def fetch(self, file: ReleaseFile, path: Path) -> None:
        """Copy one file; see ``ReleaseSource.fetch``."""
        source = self.folder / file.path
        if not source.is_file():
            message = f"{source}: is not there, though {MANIFEST} names it. Copy the whole release."
            raise ArtifactNotFoundError(message)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
        if (got := sha256_of(path)) != file.sha256:
            raise DigestMismatchError.of(str(source), expected=file.sha256, got=got)


def from_bucket(store: ObjectStore, model: str, which: str = "latest") -> BucketRelease:
    """Find a release by its version, or by an alias.

    Raises:
        ArtifactNotFoundError: There is no such model, version or alias.
        DigestMismatchError: The alias was moved to another manifest than stands there.
    """
    alias = None
    if not which.isdecimal():
        alias = read_document(Alias, store, f"{model}/aliases/{which}.json")
    key = f"{model}/{alias.version if alias else int(which)}/{MANIFEST}"
    content = store.read(key).content
    got = hashlib.sha256(content).hexdigest()
    if alias and got != alias.manifest_sha256:
        raise DigestMismatchError.of(store.url(key), expected=alias.manifest_sha256, got=got)
    return BucketRelease(store, parse_document(Manifest, content, store.url(key)))


def from_folder(folder: Path, model: str) -> FolderRelease:
    """Read a release that was copied to a folder.

    Raises:
        ArtifactNotFoundError: It holds no manifest.
        ConfigurationError: It is a release of another model.
    """
    path = folder / MANIFEST
    if not path.is_file():
        message = f"{folder}: holds no {MANIFEST} (expected the folder of one version)."
        raise ArtifactNotFoundError(message)
    manifest = parse_document(Manifest, path.read_bytes(), str(path))
    if manifest.model != model:
        message = (
            f"{folder}: is a release of another model (expected {model}, got {manifest.model})."
        )
        raise ConfigurationError(message)
    return FolderRelease(folder, manifest)


def format_of(manifest: Manifest, wanted: ModelFormat) -> PublishedFormat:
    """Return what the manifest says of one format.

    Raises:
        ConfigurationError: The release does not have it.
    """
    for each in manifest.formats:
        if each.format is wanted:
            return each
    has = ", ".join(each.format for each in manifest.formats) or "none"
    message = (
        f"{manifest.model} version {manifest.version}: has no {wanted.label} (expected one of its "
        f"formats: {has}). Add '{wanted}' to the recipe's targets and release it anew."
    )
    raise ConfigurationError(message)


def folder_of(manifest: Manifest, wanted: ModelFormat, variant: str = "") -> str:
    """Return where a format, or a variant of it, stands below the release.

    Raises:
        ConfigurationError: The release does not have it.
    """
    if not variant:
        return format_of(manifest, wanted).folder
    found = [each for each in manifest.variants if each.parent is wanted]
    has = ", ".join(each.kind for each in found if each.released) or "none"
    for each in found:
        if each.kind == variant and each.released:
            return each.folder
        if each.kind == variant:
            has = f"{has}; it was refused: {each.reason}"
    message = (
        f"{manifest.model} version {manifest.version}: has no variant '{variant}' of "
        f"{wanted.label} (expected one of: {has}). Add it to the recipe's 'variants'."
    )
    raise ConfigurationError(message)
