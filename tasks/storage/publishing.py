"""How a release is published, so that no reader ever sees half of one.

    <model>/<version>/.claim.json      who publishes under this number
    <model>/<version>/…                the files: onnx/, tf/, parity/, golden/, README.md …
    <model>/<version>/provenance.json  where they come from
    <model>/<version>/.manifest.json   the manifest's bytes, settled but not published
    <model>/<version>/model.sig        signature of all of the above but the hidden ones
    <model>/<version>/manifest.json    names every file and its SHA-256
    <model>/aliases/latest.json        names a version and its manifest's SHA-256

A version exists if it has a manifest, and only then. Nothing is ever written twice but the
alias, and the pages above the versions (``tasks.storage.current_pages``), which hold nothing
of their own. Only ``tasks.storage.removal`` deletes, and marks first what it will: a number so
marked is never published under. Step by step, and what the next run does if this one ends right
after it:

1. Claim a number: write ``.claim.json`` if there is none. Without a wanted version, it is the
   highest number in use plus one, and the next one if somebody else was faster.
   — *The same owner finds its claim and goes on with it. Another one takes the next number;
   this one stays unused, and a reader never sees it.*
2. Upload every file under a key that is free, or that holds the same bytes already.
   — *The same owner uploads what is missing. If it has other bytes by now, because a training
   does not repeat bit by bit, it takes a new number: the files of the old one may be on their
   way to being published by the run that was thought dead.*
3. Note the store's tag of every file by one listing, then read every file back and compare its
   SHA-256: in this order, so that a tag is never one of other bytes.
   — *As after 2.*
4. Write ``provenance.json`` if there is none, and read it back; then settle the manifest's
   bytes: write ``.manifest.json`` if there is none.
   — *The same owner takes those that stand there, times and all, if they are of the same
   files and name the same signing key; else a new number, as in 2.*
5. Sign the files and the settled manifest: write ``model.sig`` if there is none, and check the
   one that stands there. Left out where signing is off.
   — *The same owner finds a signature of the settled bytes, whichever try made it, and goes
   on.*
6. Write the settled bytes as ``manifest.json`` if there is none. **This is the commit.**
   — *The same owner finds its release published, and goes on with 7. For everybody else the
   version exists; ``latest`` is still the one before, until anybody publishes again.*
7. Move the alias ``latest`` by compare-and-swap, to higher versions only (see
   ``tasks.storage.aliases``).
   — *Nothing is left to do; the same owner is told what it has published.*
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.domain.artifact import Slug, StoredFile
from tasks.domain.errors import (
    ArtifactNotFoundError,
    DigestMismatchError,
    ReleaseConflictError,
    StorageError,
)
from tasks.domain.release import Manifest, Published, ReleaseFile
from tasks.storage.aliases import advance, resolve
from tasks.storage.claims import claim, claim_next, own_claim, require_still_ours
from tasks.storage.digest import sha256_of_bytes
from tasks.storage.documents import parse_document, read_document
from tasks.storage.naming import require_publishable
from tasks.storage.places import LATEST, MANIFEST, PROVENANCE, QUARANTINE
from tasks.storage.sealing import (
    Seal,
    add_provenance,
    add_signature,
    settle_manifest,
)

if TYPE_CHECKING:
    from tasks.storage.store import ObjectStore

MakeManifest = Callable[[int, tuple[ReleaseFile, ...]], Manifest]
MakeFiles = Callable[[int], Mapping[str, Path]]
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
    pages_for: MakeFiles
    seal: Seal


def publish(  # noqa: PLR0913 - what to publish, under which name, and who asks
    store: ObjectStore,
    model: Slug,
    files: Mapping[str, Path],
    manifest_for: MakeManifest,
    *,
    owner: str,
    version: int | None = None,
    on_progress: OnProgress | None = None,
    pages_for: MakeFiles | None = None,
    seal: Seal | None = None,
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
        pages_for: Makes the files that name the number, once it is known; for one number they
            must be the same in every try.
        seal: Provenance and signature; absent: there are none.

    Raises:
        ReleaseConflictError: Another owner has published, or claimed, ``version``.
        DigestMismatchError: The store returned other bytes than it was given; or, for a
            wanted ``version``, an earlier try of this owner left other bytes there.
        StorageError: The store refused. What was published before stays as it was.
    """
    require_publishable(model, files)
    errand = _Publication(
        store,
        model,
        files,
        manifest_for,
        owner,
        on_progress or (lambda _share, _text: None),
        pages_for or (lambda _number: {}),
        seal or Seal(),
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
    return resolve(store, model, LATEST)


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
    """Do steps 2 to 7 under a number that is ours."""
    key = f"{errand.model}/{version}/{MANIFEST}"
    errand.report(0.0, f"claimed version {version}")
    try:
        content = errand.store.read(key).content
    except ArtifactNotFoundError:
        content = _commit(errand, version, key, _store_files(errand, version))
    manifest = parse_document(Manifest, content, errand.store.url(key))
    file = StoredFile(key=key, sha256=sha256_of_bytes(content), size_bytes=len(content))
    errand.report(0.98, f"committed version {version}")
    is_latest = advance(errand.store, errand.model, version, file.sha256, by=errand.owner)
    errand.report(1.0, f"published version {version}")
    return Published(
        model=errand.model,
        version=version,
        manifest=file,
        latest=is_latest,
        size_bytes=sum(each.size_bytes for each in manifest.files),
    )


def _store_files(errand: _Publication, version: int) -> tuple[ReleaseFile, ...]:
    """Upload every file, then read every one back; return them in the order of their paths."""
    root = f"{errand.model}/{version}/"
    files = {**errand.files, **errand.pages_for(version)}
    require_publishable(errand.model, files)
    sizes = {path: file.stat().st_size + 1 for path, file in files.items()}
    total, done = 2 * sum(sizes.values()), 0
    stored = {}
    for path, file in files.items():
        stored[path] = errand.store.put(file, f"{root}{path}")
        done += sizes[path]
        errand.report(0.95 * done / total, f"uploaded {path}")
    # none for a listing that lags behind: such a file will be read where others are listed
    tags = {each.key: each.etag for each in errand.store.entries(root)}
    for path, each in stored.items():
        errand.store.check(each)
        done += sizes[path]
        errand.report(0.95 * done / total, f"read back {path}")
    return tuple(
        ReleaseFile(
            path=path, sha256=each.sha256, size_bytes=each.size_bytes, etag=tags.get(each.key, "")
        )
        for path, each in sorted(stored.items())
    )


def _commit(errand: _Publication, version: int, key: str, files: tuple[ReleaseFile, ...]) -> bytes:
    """Write the manifest; return the one that counts, which an earlier try of ours may have won."""
    require_still_ours(errand.store, errand.model, version, errand.owner)
    content = _seal(errand, version, f"{errand.model}/{version}/", files)
    require_still_ours(errand.store, errand.model, version, errand.owner)
    if errand.store.create(key, content):
        try:
            require_still_ours(errand.store, errand.model, version, errand.owner)
        except ReleaseConflictError:
            errand.store.remove(key)
            raise
        return content
    # the number is ours, so whoever wrote this was us, with files that have been read back too
    return errand.store.read(key).content


def _seal(errand: _Publication, version: int, root: str, files: tuple[ReleaseFile, ...]) -> bytes:
    """Do steps 4 and 5; return the manifest's bytes."""
    store, seal = errand.store, errand.seal
    if seal.statement_for:
        files += (add_provenance(store, root, files, seal.statement_for),)
        errand.report(0.96, f"wrote {PROVENANCE}")
    manifest = errand.manifest_for(version, files)
    said = (manifest.model, manifest.version, manifest.files, manifest.signing)
    if said != (errand.model, version, files, seal.signing):
        message = (
            f"{store.url(root)}{MANIFEST}: the manifest does not name this release's files and key."
        )
        raise StorageError(message)
    content = settle_manifest(store, root, manifest)
    errand.report(0.97, "settled the manifest")
    if seal.key:
        add_signature(store, root, content, seal.key)
        errand.report(0.975, f"signed version {version}")
    return content
