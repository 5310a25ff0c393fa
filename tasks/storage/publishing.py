"""How a release is published, so that no reader ever sees half of one.

    <model>/<version>/.claim.json      who publishes under this number
    <model>/<version>/…                the files: onnx/, tf/, parity/, golden/
    <model>/<version>/manifest.json    names every file and its SHA-256
    <model>/aliases/latest.json        names a version and its manifest's SHA-256

A version exists if it has a manifest, and only then. Nothing is ever written twice but the
alias. Step by step, and what the next run does if this one ends right after it:

1. Claim a number: write ``.claim.json`` if there is none. Without a wanted version, it is the
   highest number in use plus one, and the next one if somebody else was faster.
   — *The same owner finds its claim and goes on with it. Another one takes the next number;
   this one stays unused, and a reader never sees it.*
2. Upload every file under a key that is free, or that holds the same bytes already.
   — *The same owner uploads what is missing. If it has other bytes by now, because a training
   does not repeat bit by bit, it takes a new number: the files of the old one may be on their
   way to being published by the run that was thought dead.*
3. Read every file back from the store and compare its SHA-256.
   — *As after 2.*
4. Write ``manifest.json`` if there is none. **This is the commit.**
   — *The same owner finds its release published, and goes on with 5. For everybody else the
   version exists; ``latest`` is still the one before, until anybody publishes again.*
5. Move the alias ``latest`` by compare-and-swap, to higher versions only.
   — *Nothing is left to do; the same owner is told what it has published.*
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tasks.domain.artifact import Slug, StoredFile
from tasks.domain.errors import (
    ArtifactNotFoundError,
    ConfigurationError,
    DigestMismatchError,
    StorageError,
    StorageUnavailableError,
)
from tasks.domain.release import Alias, Manifest, Published, ReleaseFile
from tasks.storage.claims import (
    CLAIM,
    MANIFEST,
    MOST_TRIES,
    claim,
    claim_next,
    own_claim,
    pause,
)
from tasks.storage.documents import parse_document, read_document

if TYPE_CHECKING:
    from tasks.storage.store import ObjectStore

QUARANTINE = "quarantine"
"""The folder of what was not published."""

_RESERVED = frozenset({QUARANTINE, "serving", "work"})
_LATEST = "latest"
MakeManifest = Callable[[int, tuple[ReleaseFile, ...]], Manifest]
OnProgress = Callable[[float, str], None]


@dataclass(frozen=True)
class _Publication:
    """One publisher's errand."""

    store: ObjectStore
    model: str
    files: Mapping[str, Path]
    manifest_for: MakeManifest
    owner: str
    report: OnProgress


def publish(  # noqa: PLR0913 - what to publish, under which name, and who asks
    store: ObjectStore,
    model: Slug,
    files: Mapping[str, Path],
    manifest_for: MakeManifest,
    *,
    owner: str,
    version: int | None = None,
    on_progress: OnProgress | None = None,
) -> Published:
    """Publish files as one release of ``model``; the module's docstring has the steps.

    Args:
        store: Where to.
        model: The folder in the bucket.
        files: By their paths below the release, such as ``onnx/model.onnx``.
        manifest_for: Makes the manifest, once the number and the files' digests are known.
        owner: Who publishes: a retry that gives the same name goes on where the last one
            ended. One owner publishes one release of a model.
        version: The number to publish as; absent: the next free one.
        on_progress: Is told, after each step, the share done (0 to 1) and what was done.

    Raises:
        ReleaseConflictError: Another owner has published, or claimed, ``version``.
        DigestMismatchError: The store returned other bytes than it was given; or, for a
            wanted ``version``, an earlier try of this owner left other bytes there.
        StorageError: The store refused. What was published before stays as it was.
    """
    _require_publishable(model, files)
    errand = _Publication(
        store, model, files, manifest_for, owner, on_progress or (lambda _share, _text: None)
    )
    if version is not None:
        claim(store, model, version, owner)
        return _publish_as(errand, version)
    own = own_claim(store, model, owner)
    if own is not None:
        try:
            return _publish_as(errand, own)
        except DigestMismatchError:
            # step 2: what an earlier try of ours left there is not what we have now
            pass
    return _publish_as(errand, claim_next(store, model, owner))


def latest(store: ObjectStore, model: Slug) -> Manifest | None:
    """Return the manifest that the alias ``latest`` names; None if nothing is released.

    Raises:
        DigestMismatchError: The manifest is not the one that the alias was moved to.
        StorageError: It could not be read.
    """
    try:
        alias = read_document(Alias, store, _alias_key(model))
    except ArtifactNotFoundError:
        return None
    key = f"{model}/{alias.version}/{MANIFEST}"
    content = store.read(key).content
    if (got := _sha256(content)) != alias.manifest_sha256:
        raise DigestMismatchError.of(store.url(key), expected=alias.manifest_sha256, got=got)
    return parse_document(Manifest, content, store.url(key))


def read_release(store: ObjectStore, model: Slug, version: int) -> Manifest:
    """Return the manifest of one version.

    Raises:
        ArtifactNotFoundError: There is no such version, or it is not whole yet.
        StorageError: It could not be read.
    """
    return read_document(Manifest, store, f"{model}/{version}/{MANIFEST}")


def quarantine(store: ObjectStore, model: Slug, run: str, files: Mapping[str, Path]) -> str:
    """Keep what must not be published where people can read it; return its key prefix.

    A second try of one run that brings other bytes gets a folder of its own.

    Raises:
        StorageError: The store refused.
    """
    for attempt in count(1):
        folder = f"{QUARANTINE}/{model}/{run}" + (f"-{attempt}" if attempt > 1 else "")
        try:
            for path, file in files.items():
                store.put(file, f"{folder}/{path}")
        except DigestMismatchError:
            continue
        return f"{folder}/"
    raise AssertionError


def _publish_as(errand: _Publication, version: int) -> Published:
    """Do steps 2 to 5 under a number that is ours."""
    key = f"{errand.model}/{version}/{MANIFEST}"
    errand.report(0.0, f"claimed version {version}")
    try:
        content = errand.store.read(key).content
    except ArtifactNotFoundError:
        stored = _store_files(errand, version)
        content = _commit(errand, version, key, stored)
    manifest = parse_document(Manifest, content, errand.store.url(key))
    file = StoredFile(key=key, sha256=_sha256(content), size_bytes=len(content))
    errand.report(0.98, f"committed version {version}")
    is_latest = _move_latest(errand.store, errand.model, version, file.sha256)
    errand.report(1.0, f"published version {version}")
    return Published(
        model=errand.model,
        version=version,
        manifest=file,
        latest=is_latest,
        size_bytes=sum(each.size_bytes for each in manifest.files),
    )


def _store_files(errand: _Publication, version: int) -> tuple[StoredFile, ...]:
    """Upload every file, then read every one back."""
    sizes = {path: file.stat().st_size + 1 for path, file in errand.files.items()}
    total, done = 2 * sum(sizes.values()), 0
    stored = {}
    for path, file in errand.files.items():
        stored[path] = errand.store.put(file, f"{errand.model}/{version}/{path}")
        done += sizes[path]
        errand.report(0.95 * done / total, f"uploaded {path}")
    for path, each in stored.items():
        errand.store.check(each)
        done += sizes[path]
        errand.report(0.95 * done / total, f"read back {path}")
    return tuple(stored.values())


def _commit(errand: _Publication, version: int, key: str, stored: tuple[StoredFile, ...]) -> bytes:
    """Write the manifest; return the one that counts, which an earlier try of ours may have won."""
    root = f"{errand.model}/{version}/"
    files = tuple(
        ReleaseFile(
            path=each.key.removeprefix(root), sha256=each.sha256, size_bytes=each.size_bytes
        )
        for each in sorted(stored, key=lambda file: file.key)
    )
    manifest = errand.manifest_for(version, files)
    if (manifest.model, manifest.version, manifest.files) != (errand.model, version, files):
        message = f"{errand.store.url(key)}: the manifest does not name this release's files."
        raise StorageError(message)
    content = manifest.model_dump_json(indent=2).encode()
    if errand.store.create(key, content):
        return content
    # the number is ours, so whoever wrote this was us, with files that have been read back too
    return errand.store.read(key).content


def _move_latest(store: ObjectStore, model: str, version: int, manifest_sha256: str) -> bool:
    """Move ``latest`` forwards to ``version``; return whether it stands there now."""
    key = _alias_key(model)
    alias = Alias(
        model=model, version=version, manifest_sha256=manifest_sha256, moved=datetime.now(UTC)
    )
    content = alias.model_dump_json(indent=2).encode()
    for _ in range(MOST_TRIES):
        try:
            text = store.read(key)
        except ArtifactNotFoundError:
            if store.create(key, content):
                return True
            continue
        standing = parse_document(Alias, text.content, store.url(key)).version
        if standing >= version:
            return standing == version
        if store.replace(key, content, text.etag):
            return True
        pause()
    message = f"{store.url(key)}: too many move this alias at once. Try again later."
    raise StorageUnavailableError(message)


def _alias_key(model: str) -> str:
    return f"{model}/aliases/{_LATEST}.json"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _require_publishable(model: str, files: Mapping[str, Path]) -> None:
    """Refuse paths that would leave the release, hide in it, or stand in each other's way."""
    if model in _RESERVED:
        message = f"{model}: is a folder of the bucket with a purpose of its own. Rename the model."
        raise ConfigurationError(message)
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    for path, file in files.items():
        if not file.is_file():
            raise StorageError(f"{file}: no such file; it was to be published as {model}/…/{path}.")
        plain = str(PurePosixPath(path)) == path and not path.startswith("/")
        if not plain or ".." in path.split("/") or path in {CLAIM, MANIFEST} or path in folders:
            message = (
                f"{model}: cannot publish a file as '{path}' (expected a relative path such as "
                f"onnx/model.onnx, not {MANIFEST} or {CLAIM}, not also a folder). Rename it."
            )
            raise ConfigurationError(message)
