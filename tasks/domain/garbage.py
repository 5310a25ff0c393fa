"""What may be removed from the bucket: a rule over what was seen there, and nothing else.

A version is needed, and kept, if an alias stands at it or would stand there after a rollback,
if somebody holds it, or if it is among the last N that are whole. A number without a manifest
is kept as long as its run may be alive: until nothing that belongs to the run (the number's
folder, ``work/<run>/``, unfinished uploads) has been written for ``idle_days``. No stage may
take longer than six hours, and each is tried four times at most, so that a day is the longest
silence of a run that lives; the default is a week. All times are the store's own.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from tasks.domain.value import Value

GarbageKind: TypeAlias = Literal["release", "number", "mark", "quarantine", "work", "upload"]
"""A mark is what an interrupted collection left on a version that is needed; it is taken back."""

VersionState: TypeAlias = Literal["whole", "marked", "half removed", "unfinished", "unknown"]
"""Marked and half removed: an interrupted collection's, with and without a manifest.

Unfinished: claimed, without a manifest. Unknown: neither, so none of this program's making.
"""


class KeepPolicy(Value):
    """What is kept although no alias and no hold asks for it."""

    last: PositiveInt = 5
    """How many of the highest whole versions of each model."""
    idle_days: NonNegativeFloat = 7
    """How long a run may be silent before it counts as dead."""
    quarantine_days: NonNegativeFloat = 30
    """How long the reports of a failed run are kept."""


class SeenFolder(Value):
    """Objects that stay or go together."""

    key: str
    """Their common prefix, with a slash at its end."""
    objects: NonNegativeInt
    size_bytes: NonNegativeInt
    written: datetime
    """When the youngest of them, or of what else belongs to its run, was written."""


class SeenVersion(SeenFolder):
    """A number in use."""

    version: PositiveInt
    state: VersionState


class SeenUpload(Value):
    """An upload that did not become an object yet."""

    key: str
    id: str
    begun: datetime


class SeenModel(Value):
    """What is known of one model."""

    model: str
    versions: tuple[SeenVersion, ...]
    needed: dict[int, str]
    """Why a version is needed, in words, for those that an alias or a hold needs."""
    unreadable: str | None = None
    """Why nothing of this model may be removed: a document that could not be understood."""


class Seen(Value):
    """What a look at the bucket found."""

    now: datetime
    models: tuple[SeenModel, ...]
    quarantine: tuple[SeenFolder, ...] = ()
    work: tuple[SeenFolder, ...] = ()
    uploads: tuple[SeenUpload, ...] = ()


class Removal(Value):
    """Something that nobody needs."""

    kind: GarbageKind
    key: str
    why: str
    objects: NonNegativeInt
    size_bytes: NonNegativeInt
    model: str | None = None
    version: PositiveInt | None = None
    upload: str | None = None


class Kept(Value):
    """Something that stays, and why."""

    key: str
    why: str


class GarbagePlan(Value):
    """What collecting would do."""

    removals: tuple[Removal, ...]
    kept: tuple[Kept, ...]
    refused: tuple[str, ...] = ()
    """Why a whole model is left alone; mend it, then collect again."""

    @property
    def size_bytes(self) -> int:
        """How much would be given back; parts of unfinished uploads are not counted."""
        return sum(each.size_bytes for each in self.removals)


def plan_removals(seen: Seen, policy: KeepPolicy) -> GarbagePlan:
    """Decide what goes and what stays.

    Args:
        seen: What the bucket holds.
        policy: What is kept although nobody asks for it.
    """
    decided: list[Removal | Kept] = [
        _decide(seen, model, version, policy)
        for model in seen.models
        if model.unreadable is None
        for version in sorted(model.versions, key=lambda each: each.version)
    ]
    decided += [
        _decide_folder(seen, "quarantine", each, policy.quarantine_days) for each in seen.quarantine
    ]
    decided += [_decide_folder(seen, "work", each, policy.idle_days) for each in seen.work]
    decided += [_decide_upload(seen, each, policy) for each in seen.uploads]
    return GarbagePlan(
        removals=tuple(each for each in decided if isinstance(each, Removal)),
        kept=tuple(each for each in decided if isinstance(each, Kept)),
        refused=tuple(each.unreadable for each in seen.models if each.unreadable is not None),
    )


def _decide(
    seen: Seen, model: SeenModel, version: SeenVersion, policy: KeepPolicy
) -> Removal | Kept:
    why = _why_kept(seen, model, version, policy)
    if why is None:
        return _of_version(model, version, policy)
    if version.state in {"marked", "half removed"}:
        return Removal(
            kind="mark",
            key=version.key,
            why=f"an interrupted collection's mark is taken back: {why}",
            objects=1,
            size_bytes=0,
            model=model.model,
            version=version.version,
        )
    return Kept(key=version.key, why=why)


def _why_kept(seen: Seen, model: SeenModel, version: SeenVersion, policy: KeepPolicy) -> str | None:
    if version.version in model.needed:
        return model.needed[version.version]
    whole = sorted(each.version for each in model.versions if each.state in {"whole", "marked"})
    if version.version in whole[-policy.last :]:
        return f"among the last {policy.last}"
    if version.state == "unknown":
        return "neither claim nor manifest: not of this program's making"
    if version.state == "unfinished" and not _is_older(seen, version.written, policy.idle_days):
        return f"unfinished, and written to within {policy.idle_days:g} days: its run may live"
    return None


def _is_older(seen: Seen, written: datetime, days: float) -> bool:
    return seen.now - written >= timedelta(days=days)


def _of_version(model: SeenModel, version: SeenVersion, policy: KeepPolicy) -> Removal:
    words = {
        "whole": f"no alias, no hold, and not among the last {policy.last}",
        "marked": "an earlier collection began to remove it",
        "unfinished": f"no manifest, and nothing written for {policy.idle_days:g} days",
        "half removed": "an earlier collection began to remove it",
    }
    return Removal(
        kind="number" if version.state == "unfinished" else "release",
        key=version.key,
        why=words[version.state],
        objects=version.objects,
        size_bytes=version.size_bytes,
        model=model.model,
        version=version.version,
    )


def _decide_folder(
    seen: Seen, kind: GarbageKind, folder: SeenFolder, days: float
) -> Removal | Kept:
    if not _is_older(seen, folder.written, days):
        return Kept(key=folder.key, why=f"{kind}, written to within {days:g} days")
    return Removal(
        kind=kind,
        key=folder.key,
        why=f"{kind}, not written to for {days:g} days",
        objects=folder.objects,
        size_bytes=folder.size_bytes,
    )


def _decide_upload(seen: Seen, upload: SeenUpload, policy: KeepPolicy) -> Removal | Kept:
    if not _is_older(seen, upload.begun, policy.idle_days):
        return Kept(key=upload.key, why=f"upload, begun within {policy.idle_days:g} days")
    return Removal(
        kind="upload",
        key=upload.key,
        why=f"upload, begun {policy.idle_days:g} days ago or earlier, and not completed",
        objects=0,
        size_bytes=0,
        upload=upload.id,
    )
