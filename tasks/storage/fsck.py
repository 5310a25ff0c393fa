"""Checking the bucket: every byte of every release against its manifest, every alias, all else.

Files are streamed; what is held in memory is the listing of one model. Nothing is changed, but
for unfinished uploads if the caller asks for it; leftovers are for ``tasks.storage.garbage``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.domain.artifact import StoredFile
from tasks.domain.errors import (
    ArtifactNotFoundError,
    DigestMismatchError,
    NewerSchemaError,
    ReleaseError,
    StorageError,
    StorageUnavailableError,
)
from tasks.domain.findings import BucketReport, Finding, FindingKind
from tasks.domain.release import Alias, Hold, Manifest
from tasks.storage.digest import sha256_of_bytes
from tasks.storage.documents import Document, read_document
from tasks.storage.leftovers import COLLECT, find_leftovers
from tasks.storage.places import (
    ALIASES,
    CLAIM,
    HOLDS,
    MANIFEST,
    PAGES,
    REMOVAL,
    UNLISTED,
    model_folders,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.storage.inventory import Inventory
    from tasks.storage.store import Entry

    OnProgress = Callable[[float, str], None]

_RESTORE = (
    "Restore the file from a copy with the manifest's SHA-256, or publish again; move aliases "
    "to a sound version meanwhile ('conveyor promote' or 'conveyor rollback')."
)


@dataclass
class _Check:
    """One check under way."""

    store: Inventory
    report: OnProgress
    total_bytes: int = 0
    read_bytes: int = 0
    files: int = 0
    releases: int = 0
    findings: list[Finding] = field(default_factory=list)

    def error(self, kind: FindingKind, key: str, what: str, next_: str) -> None:
        self.findings.append(Finding(level="error", kind=kind, key=key, what=what, next=next_))

    def note(self, kind: FindingKind, key: str, what: str, next_: str) -> None:
        self.findings.append(Finding(level="note", kind=kind, key=key, what=what, next=next_))


def fsck(
    store: Inventory,
    model: str | None = None,
    *,
    repair: bool = False,
    idle_days: float = 7,
    on_progress: OnProgress = lambda _share, _text: None,
) -> BucketReport:
    """Check the bucket, or one model.

    Args:
        store: Where.
        model: Which model alone; absent: all of them.
        repair: Whether to abort uploads that began ``idle_days`` ago or earlier.
        idle_days: How old an unfinished upload must be, by the store's clock.
        on_progress: Is told, file by file, the share of bytes read (0 to 1) and what was read.

    Raises:
        StorageUnavailableError: The store does not answer; a file that alone cannot be read is
            a finding.
        StorageError: The store refused.
    """
    check = _Check(store, on_progress)
    models = [model] if model is not None else model_folders(store)
    listings = {name: list(store.entries(f"{name}/")) for name in models}
    check.total_bytes = sum(each.size_bytes for some in listings.values() for each in some)
    for name in models:
        _check_model(check, name, listings.pop(name))
    check.findings += find_leftovers(store, model, repair=repair, idle_days=idle_days)
    on_progress(1.0, "done")
    return BucketReport(
        findings=tuple(check.findings),
        models=len(models),
        releases=check.releases,
        files=check.files,
        size_bytes=check.read_bytes,
    )


def _check_model(check: _Check, model: str, entries: list[Entry]) -> None:
    folders: dict[str, dict[str, Entry]] = defaultdict(dict)
    for each in entries:
        folder, _, path = each.key.removeprefix(f"{model}/").partition("/")
        folders[folder][path] = each
    numbers = [name for name in folders if version_of(name) is not None and "" not in folders[name]]
    for name in sorted(numbers, key=int):
        _check_version(check, model, int(name), folders[name])
    for path, entry in folders.get(ALIASES, {}).items():
        _check_alias(check, entry.key, path)
    for path, entry in folders.get(HOLDS, {}).items():
        _check_hold(check, entry.key, path)
    for name in folders.keys() - {*numbers, ALIASES, HOLDS, *PAGES}:
        for entry in folders[name].values():
            what = "lies where nothing of this program's belongs"
            check.note("unknown", entry.key, what, "Remove it if nobody knows it.")


def _check_version(check: _Check, model: str, version: int, entries: dict[str, Entry]) -> None:
    key = f"{model}/{version}/"
    if MANIFEST not in entries:
        _note_unfinished(check, key, entries)
        return
    if REMOVAL in entries:
        what = "an interrupted collection marked this version"
        check.note("removal", f"{key}{REMOVAL}", what, "'conveyor gc' finishes it, or undoes it.")
    manifest = _read(check, Manifest, f"{key}{MANIFEST}")
    if manifest is None:
        return
    before = len(check.findings)
    _check_manifest(check, key, manifest, (model, version))
    _check_files(check, key, manifest, entries)
    if len(check.findings) > before and _digest_now(check, key) is None:
        del check.findings[before:]
        check.note("removal", key, "was removed while it was checked", "Nothing is to be done.")
        return
    check.releases += 1


def _check_manifest(check: _Check, key: str, manifest: Manifest, place: tuple[str, int]) -> None:
    if (manifest.model, manifest.version) != place:
        what = f"is of another release (expected {place}, got {manifest.model, manifest.version})"
        check.error("manifest", f"{key}{MANIFEST}", what, "Find out who copied it here.")


def _check_files(check: _Check, key: str, manifest: Manifest, entries: dict[str, Entry]) -> None:
    for file in manifest.files:
        entry = entries.get(file.path)
        full = f"{key}{file.path}"
        if entry is None:
            what = f"is missing (expected {file.size_bytes:,} bytes, got no object)"
            check.error("missing", full, what, _RESTORE)
        elif entry.size_bytes != file.size_bytes:
            what = (
                f"has another size (expected {file.size_bytes:,} bytes, got {entry.size_bytes:,})"
            )
            check.error("size", full, what, _RESTORE)
        else:
            _check_bytes(
                check, StoredFile(key=full, sha256=file.sha256, size_bytes=file.size_bytes)
            )
    named = {file.path for file in manifest.files} | {*UNLISTED}
    for path in sorted(entries.keys() - named):
        what = "is not named by the manifest"
        check.error("extra", f"{key}{path}", what, "Find out who put it there, and remove it.")


def _check_bytes(check: _Check, file: StoredFile) -> None:
    """Read a file, every byte of it."""
    try:
        check.store.check(file)
    except ArtifactNotFoundError:
        check.error("missing", file.key, "is missing (it was listed a moment ago)", _RESTORE)
    except DigestMismatchError as error:
        check.error("digest", file.key, f"has other content ({_facts(error)})", _RESTORE)
    except StorageError as error:
        _require_answer(check, error)
        check.error("unreadable", file.key, f"cannot be read ({_facts(error)})", _RESTORE)
    check.files += 1
    check.read_bytes += file.size_bytes
    check.report(min(check.read_bytes / max(check.total_bytes, 1), 1.0), file.key)


def _require_answer(check: _Check, error: StorageError) -> None:
    """Go on if one object alone is in trouble; end if the whole store is."""
    if not error.transient:
        return
    try:
        check.store.now()
    except StorageUnavailableError as no_answer:
        raise no_answer from error


def _check_alias(check: _Check, key: str, path: str) -> None:
    alias = _read(check, Alias, key)
    if alias is None:
        return
    standing = f"'{path.removesuffix('.json')}' stands at version {alias.version}"
    next_ = "Promote a sound version ('conveyor promote'), or roll back."
    got = _digest_now(check, f"{alias.model}/{alias.version}/")
    if got is None:
        check.error("alias", key, f"{standing}, which has no manifest", next_)
    elif got != alias.manifest_sha256:
        expected = alias.manifest_sha256[:12]
        what = f"{standing}, whose manifest is another (expected {expected}, got {got[:12]})"
        check.error("alias", key, what, next_)


def _check_hold(check: _Check, key: str, path: str) -> None:
    hold = _read(check, Hold, key)
    if hold is None:
        return
    if f"{hold.version}.json" != path or not _digest_now(check, f"{hold.model}/{hold.version}/"):
        what = f"holds version {hold.version}, which has no manifest"
        check.error("hold", key, what, "See what became of the version, or end it by 'unhold'.")


def _read(check: _Check, kind: type[Document], key: str) -> Document | None:
    """Read a document; None, and a finding, if that cannot be done."""
    try:
        return read_document(kind, check.store, key)
    except ArtifactNotFoundError:
        return None  # moved or removed since it was listed
    except NewerSchemaError as error:
        next_ = "Install a version that knows it; what it names was not checked."
        check.error("schema", key, _facts(error), next_)
    except StorageError as error:
        _require_answer(check, error)
        next_ = "Restore it from a copy, or publish again; nothing of it is believed."
        check.error("unreadable", key, _facts(error), next_)
    return None


def _digest_now(check: _Check, folder: str) -> str | None:
    """Return the digest of a version's manifest as it is now; None if there is none."""
    try:
        return sha256_of_bytes(check.store.read(f"{folder}{MANIFEST}").content)
    except ArtifactNotFoundError:
        return None


def _note_unfinished(check: _Check, key: str, entries: dict[str, Entry]) -> None:
    if REMOVAL in entries:
        what = "is half removed by a collection that was interrupted"
        check.note("removal", key, what, "'conveyor gc' finishes it.")
    elif CLAIM in entries:
        what = "has no manifest: a run publishes it now, or died, or its manifest was deleted"
        check.note("unfinished", key, what, f"If no run is alive, {COLLECT}.")
    else:
        what = "has neither claim nor manifest"
        check.note("unknown", key, what, "Remove it if nobody knows it.")


def _facts(error: ReleaseError) -> str:
    """Return what was expected and got, or all words but the place that they begin with."""
    words = " ".join(str(error).split())
    facts = re.search(r"\((expected [^()]*)\)", words)
    if isinstance(error, DigestMismatchError) and facts:
        return facts.group(1)
    return words.partition(": ")[2].rstrip(".") or words
