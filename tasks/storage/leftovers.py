"""What runs leave behind: reports of failed ones, working files, uploads that broke off."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from tasks.domain.findings import Finding, FindingKind
from tasks.storage.places import QUARANTINE, WORK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.storage.inventory import Inventory

COLLECT = "'conveyor gc' removes it when it is old"


def find_leftovers(
    store: Inventory, model: str | None, *, repair: bool, idle_days: float
) -> Iterator[Finding]:
    """Yield what is left over in the bucket, or of one model.

    Args:
        store: Where.
        model: Which model alone; working files belong to runs, and are then left out.
        repair: Whether to abort uploads that began ``idle_days`` ago or earlier.
        idle_days: How old an unfinished upload must be, by the store's clock.
    """
    below = f"{model}/" if model is not None else ""
    what = "{} objects of a run that published nothing, {:,} bytes"
    yield from _folders(store, "quarantine", f"{QUARANTINE}/{below}", 3, what)
    if model is None:
        what = "{} working files of a run that is alive, or died, {:,} bytes"
        yield from _folders(store, "work", f"{WORK}/", 2, what)
    now = store.now()
    for upload in list(store.uploads(below)):
        what = f"an upload began at {upload.begun:%Y-%m-%d %H:%M} UTC and was not completed"
        next_ = "Its run may be alive."
        if now - upload.begun >= timedelta(days=idle_days):
            next_ = "It was aborted." if repair else "'conveyor fsck --repair' aborts it."
            if repair:
                store.abort(upload)
        yield Finding(level="note", kind="upload", key=upload.key, what=what, next=next_)


def _folders(
    store: Inventory, kind: FindingKind, root: str, depth: int, what: str
) -> Iterator[Finding]:
    objects: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in store.entries(root):
        folder = "/".join(entry.key.split("/")[:depth])
        objects[folder] += 1
        sizes[folder] += entry.size_bytes
    for folder in sorted(objects):
        yield Finding(
            level="note",
            kind=kind,
            key=folder,
            what=what.format(objects[folder], sizes[folder]),
            next=f"Read it; {COLLECT}.",
        )
