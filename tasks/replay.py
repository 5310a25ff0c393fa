"""Replaying the golden samples of the last release: part of stage 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect.logging import get_run_logger

from tasks.domain.artifact import StoredFile
from tasks.domain.drift import Replay
from tasks.domain.errors import (
    ArtifactNotFoundError,
    DigestMismatchError,
    ReleaseError,
    UnreadableDocumentError,
)
from tasks.isolation import Call, Family
from tasks.runtime import workshop
from tasks.storage import publishing
from tasks.storage.digest import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.recipe import Recipe
    from tasks.domain.release import Manifest, ProbeInfo, ReleaseFile

_INPUTS, _ANSWERS = "golden/inputs/", "golden/answers/"
_MOST_BYTES = 64_000_000
"""What is fetched of inputs that are no longer the same."""
_UNUSABLE = (ArtifactNotFoundError, DigestMismatchError, UnreadableDocumentError)


@dataclass(frozen=True)
class LastGolden:
    """The last release's golden samples on this disk, and what is known of them so far."""

    version: int
    answers: Path
    """What the source answered then, ``<probe>.npz`` each."""
    same: tuple[str, ...]
    """Probes whose inputs are the same now."""
    probe: ProbeInfo | None
    """The rows that are in no other probe."""
    rows: int
    notes: tuple[str, ...]


def replay_golden(recipe: Recipe, probes: tuple[ProbeInfo, ...], folder: Path) -> LastGolden | None:
    """Fetch the last release's golden samples; write the rows that are new as a further probe.

    What cannot be replayed is noted, and stops no release: another signature, files that are
    gone. Inputs that this run has made again, byte for byte, are not fetched.

    Args:
        recipe: The run's.
        probes: The probes that were made.
        folder: Where they stand; ``golden.npz`` is written beside them.

    Returns:
        None where nothing is released.

    Raises:
        StorageUnavailableError: The store does not answer.
    """
    shop = workshop()
    try:
        last = publishing.latest(shop.store, recipe.name)
    except _UNUSABLE as error:
        get_run_logger().warning("%s: no golden samples are replayed: %s", recipe.name, error)
        return None
    if last is None:
        return None
    inputs, answers = shop.new_folder("golden-inputs"), shop.new_folder("golden-answers")
    if last.recipe.signature.plain != recipe.signature.plain:
        return LastGolden(last.version, answers, (), None, 0, ("its signature is another one",))
    same, notes = _fetch(last, {each.name: folder for each in probes}, inputs, answers)
    probe, left_out = _new_rows(recipe, last.version, probes, folder, inputs, answers)
    rows = sum(each.rows for each in probes if each.name in same) + (probe.rows if probe else 0)
    if left_out:
        notes += (f"{left_out} rows left out, for room or for other sizes",)
    return LastGolden(last.version, answers, same, probe, rows, notes)


def _fetch(
    last: Manifest, made: dict[str, Path], inputs: Path, answers: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fetch inputs that differ, and all answers; return the names of those that do not differ."""
    same, notes, size = list[str](), list[str](), 0
    files = {each.path: each for each in last.files}
    for path, file in files.items():
        name = path.removeprefix(_INPUTS).removesuffix(".npz")
        answer = files.get(f"{_ANSWERS}{name}.npz")
        if not path.startswith(_INPUTS) or answer is None:
            continue
        alike = name in made and sha256_of(made[name] / f"{name}.npz") == file.sha256
        if not alike and size + file.size_bytes > _MOST_BYTES:
            notes.append(f"'{name}' is too large to fetch")
            continue
        try:
            _get(last, answer, answers / f"{name}.npz")
            if not alike:
                size += file.size_bytes
                _get(last, file, inputs / f"{name}.npz")
        except _UNUSABLE as error:
            notes.append(f"'{name}' cannot be fetched: {error}")
            continue
        if alike:
            same.append(name)
    return tuple(same), tuple(notes)


def _get(last: Manifest, file: ReleaseFile, path: Path) -> None:
    key = f"{last.model}/{last.version}/{file.path}"
    stored = StoredFile(key=key, sha256=file.sha256, size_bytes=file.size_bytes)
    workshop().store.get(stored, path)


def _new_rows(
    recipe: Recipe,
    version: int,
    probes: tuple[ProbeInfo, ...],
    folder: Path,
    inputs: Path,
    answers: Path,
) -> tuple[ProbeInfo | None, int]:
    from tasks.steps.replay import ReplayRequest, make_golden

    if not any(inputs.iterdir()):
        return None, 0
    names = tuple(each.name for each in probes)
    request = ReplayRequest(
        version=version, probes=folder, names=names, inputs=inputs, answers=answers
    )
    reply = workshop().children.call(make_golden, request, _call(recipe)).value
    return reply.probe, reply.left_out


def compare_with_last(recipe: Recipe, golden: LastGolden, answers: Path) -> Replay:
    """Hold the source's answers to those that it gave to the same rows in the last release."""
    from tasks.steps.replay import SourceDriftRequest, compare_source

    names = golden.same + ((golden.probe.name,) if golden.probe else ())
    replay = Replay(version=golden.version, rows=golden.rows, notes=golden.notes)
    if names:
        request = SourceDriftRequest(recipe=recipe, now=answers, then=golden.answers, names=names)
        found = workshop().children.call(compare_source, request, _call(recipe)).value
        replay = replay.model_copy(update={"source": found.outputs})
    log = get_run_logger()
    changed = any(each.changed for each in replay.source)
    (log.warning if changed else log.info)("%s: %s", recipe.name, replay.summary())
    return replay


def _call(recipe: Recipe) -> Call:
    return Call("golden samples", recipe.name, Family.LIGHT, recipe.limits, ReleaseError)
