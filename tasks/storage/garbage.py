"""Collecting garbage: look, plan (``tasks.domain.garbage``), and only then remove."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

from tasks.domain.errors import ArtifactNotFoundError, StorageError
from tasks.domain.garbage import (
    Kept,
    Removal,
    Seen,
    SeenFolder,
    SeenModel,
    SeenUpload,
    SeenVersion,
    VersionState,
)
from tasks.domain.release import Manifest
from tasks.domain.value import Value
from tasks.storage.aliases import read_aliases
from tasks.storage.claims import Claim
from tasks.storage.documents import read_document
from tasks.storage.holds import read_holds
from tasks.storage.inventory import Upload
from tasks.storage.pipeline import WORKERS, pipelined
from tasks.storage.places import (
    CLAIM,
    DRAFT,
    MANIFEST,
    PROVENANCE,
    QUARANTINE,
    REMOVAL,
    SIGNATURE,
    WORK,
    model_folders,
    version_of,
)
from tasks.storage.removal import remove_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.storage.inventory import Inventory
    from tasks.storage.store import Entry, ObjectStore

    OnProgress = Callable[[float, str], None]

_NOTED = {DRAFT, PROVENANCE, SIGNATURE}
_RUN_DEPTH = {QUARANTINE: 3, WORK: 2}
"""Parts of a key that name a run's folder: ``quarantine/<model>/<run>/``, ``work/<run>/``."""


class Collected(Value):
    """What collecting did."""

    removed: tuple[Removal, ...]
    spared: tuple[Kept, ...]
    """What was planned to go, and stays because something changed meanwhile."""
    size_bytes: NonNegativeInt

    @property
    def models(self) -> tuple[str, ...]:
        """The models of which versions were removed."""
        return tuple(sorted({each.model for each in self.removed if each.model and each.version}))


def look(store: Inventory, model: str | None = None) -> Seen:
    """Look at the bucket, or at one model and its quarantine; nothing is written.

    Args:
        store: Where.
        model: Which model alone; ``work/`` is then left out, since it belongs to runs.
    """
    now = store.now()
    prefix = "" if model is None else f"{model}/"
    uploads = tuple(store.uploads(prefix))
    quarantine = _run_folders(store, QUARANTINE, f"{QUARANTINE}/{prefix}")
    work = _run_folders(store, WORK, f"{WORK}/")
    names = [model] if model is not None else model_folders(store)
    seen = tuple(pipelined(lambda name: _look_at_model(store, name, work, uploads), names, WORKERS))
    return Seen(
        now=now,
        models=seen,
        quarantine=quarantine,
        work=() if model is not None else _awake(work, seen, store),
        uploads=tuple(SeenUpload(key=key, id=id_, begun=begun) for key, id_, begun in uploads),
    )


def why_needed(store: ObjectStore, model: str) -> dict[int, str]:
    """Say of each version that an alias or a hold needs why that is so.

    Raises:
        StorageError: One of them could not be read, or only by a newer version.
    """
    reasons: dict[int, list[str]] = defaultdict(list)
    for name, alias in read_aliases(store, model).items():
        reasons[alias.version].append(f"alias {name}")
        if (before := alias.before()) is not None and before.version != alias.version:
            reasons[before.version].append(f"a rollback of {name} leads there")
    for version, hold in read_holds(store, model).items():
        reasons[version].append(f"held by {hold.by}: {hold.reason}")
    return {version: "; ".join(words) for version, words in reasons.items()}


def collect(
    store: Inventory,
    removals: Iterable[Removal],
    on_progress: OnProgress = lambda _share, _text: None,
) -> Collected:
    """Do what was planned; what somebody needs by now is spared.

    Killed at any point, it leaves no version that looks whole and is not; the next collection
    goes on. See ``tasks.storage.removal``.

    Args:
        store: Where.
        removals: Of a plan.
        on_progress: Is told, after each step, the share done (0 to 1) and what was done.

    Raises:
        StorageError: The store refused, or an alias or a hold can no longer be read.
    """
    planned = tuple(removals)
    removed, spared = [], []
    for number, each in enumerate(planned):

        def tell(step: str, share: float = number / len(planned), key: str = each.key) -> None:
            on_progress(share, f"{key} {step}")

        reason = _remove(store, each, tell)
        if reason is None:
            removed.append(each)
        else:
            spared.append(Kept(key=each.key, why=reason))
    on_progress(1.0, f"{len(removed)} removed")
    size_bytes = sum(each.size_bytes for each in removed)
    return Collected(removed=tuple(removed), spared=tuple(spared), size_bytes=size_bytes)


def _remove(store: Inventory, removal: Removal, on_step: Callable[[str], None]) -> str | None:
    if removal.upload is not None:
        # its time decided already; an upload is aborted by its id, which tells it from others
        store.abort(Upload(removal.key, removal.upload, datetime.min))  # noqa: DTZ901
        return None
    if removal.model is None or removal.version is None:
        store.remove(removal.key)
        return None
    model, version = removal.model, removal.version
    kept = removal.why if removal.kind == "mark" else None
    return remove_version(
        store,
        model,
        version,
        lambda: why_needed(store, model).get(version) or kept,
        published=removal.kind != "number",
        on_step=on_step,
    )


def _look_at_model(
    store: Inventory, model: str, work: tuple[SeenFolder, ...], uploads: tuple[Upload, ...]
) -> SeenModel:
    folders: dict[int, list[Entry]] = defaultdict(list)
    for entry in store.entries(f"{model}/"):
        version = version_of(entry.key.split("/")[1])
        if version is not None and entry.key.count("/") > 1:
            folders[version].append(entry)
    try:
        needed = why_needed(store, model)
        versions = tuple(
            _look_at_version(store, f"{model}/{version}/", version, entries, (work, uploads))
            for version, entries in folders.items()
        )
    except StorageError as error:
        if error.transient:
            raise
        return SeenModel(model=model, versions=(), needed={}, unreadable=str(error))
    return SeenModel(model=model, versions=versions, needed=needed)


def _look_at_version(
    store: Inventory,
    key: str,
    version: int,
    entries: list[Entry],
    elsewhere: tuple[tuple[SeenFolder, ...], tuple[Upload, ...]],
) -> SeenVersion:
    state = _state({each.key.removeprefix(key) for each in entries})
    if state == "whole":
        # what this program cannot read, it does not understand well enough to remove
        _read_or_none(store, f"{key}{MANIFEST}")
    times = [each.modified for each in entries]
    if state == "unfinished":
        work, uploads = elsewhere
        owned = f"{WORK}/{_owner(store, key)}/"
        times += [each.written for each in work if each.key == owned]
        times += [each.begun for each in uploads if each.key.startswith((key, owned))]
    return SeenVersion(
        key=key,
        version=version,
        state=state,
        objects=len(entries),
        size_bytes=sum(each.size_bytes for each in entries),
        written=max(times),
    )


def _state(names: set[str]) -> VersionState:
    if REMOVAL in names:
        return "marked" if MANIFEST in names else "half removed"
    if MANIFEST in names:
        return "whole"
    # a run whose number was given up may still have settled and signed what it then left
    return "unfinished" if CLAIM in names or names <= _NOTED else "unknown"


def _read_or_none(store: ObjectStore, key: str) -> Manifest | None:
    try:
        return read_document(Manifest, store, key)
    except ArtifactNotFoundError:
        return None  # removed since it was listed


def _owner(store: ObjectStore, key: str) -> str:
    try:
        return read_document(Claim, store, f"{key}{CLAIM}").owner
    except ArtifactNotFoundError:
        return ""


def _run_folders(store: Inventory, root: str, prefix: str) -> tuple[SeenFolder, ...]:
    """Count what lies in each run's folder."""
    folders: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.entries(prefix):
        *parts, _name = entry.key.split("/")
        if len(parts) >= _RUN_DEPTH[root]:
            folders["/".join(parts[: _RUN_DEPTH[root]]) + "/"].append(entry)
    return tuple(
        SeenFolder(
            key=key,
            objects=len(entries),
            size_bytes=sum(each.size_bytes for each in entries),
            written=max(each.modified for each in entries),
        )
        for key, entries in sorted(folders.items())
    )


def _awake(
    work: tuple[SeenFolder, ...], models: tuple[SeenModel, ...], store: ObjectStore
) -> tuple[SeenFolder, ...]:
    """Count a run's working files as written when its unfinished number was."""
    written: dict[str, datetime] = {}
    for model in models:
        for version in model.versions:
            if version.state == "unfinished":
                folder = f"{WORK}/{_owner(store, version.key)}/"
                written[folder] = max(version.written, written.get(folder, version.written))
    return tuple(
        each.model_copy(update={"written": max(each.written, written.get(each.key, each.written))})
        for each in work
    )
