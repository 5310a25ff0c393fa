"""The last release's golden rows: those that no probe holds are tried again, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.drift import GOLDEN, SourceDrift
from tasks.domain.recipe import Recipe
from tasks.domain.release import ProbeInfo
from tasks.domain.value import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

_MOST_ROWS = 64
_MOST_BYTES = 8_000_000
"""Thirteen pictures of 224 x 224 in float32: all answers to them are computed anew each time."""


class ReplayRequest(Value):
    """Which golden rows may be tried again."""

    version: int
    probes: Path
    """Folder of this run's ``<probe>.npz``; ``golden.npz`` is written there."""
    names: tuple[str, ...]
    """This run's probes."""
    inputs: Path
    """Folder of the last release's ``<probe>.npz`` that differ from this run's."""
    answers: Path
    """Folder of what the source answered to them then; ``golden.npz`` is written there too."""


class ReplayReply(Value):
    """The probe that was made; absent where this run's probes hold every row already."""

    probe: ProbeInfo | None = None
    left_out: int = 0
    """Rows for which there was no room, or which have other sizes."""


def make_golden(request: ReplayRequest) -> ReplayReply:
    """Write the last release's rows that this run's probes do not hold, with their answers."""
    known = {
        _digest(row)
        for name in request.names
        for row in _rows(load_arrays(request.probes / f"{name}.npz"))
    }
    inputs, answers, left_out = list[Any](), list[Any](), 0
    size = 0
    for path in sorted(request.inputs.glob("*.npz")):
        said = _rows(load_arrays(request.answers / path.name))
        for row, answer in zip(_rows(load_arrays(path)), said, strict=True):
            if (digest := _digest(row)) in known:
                continue
            known.add(digest)
            more = size + sum(each.nbytes for each in row.values())
            fits = not inputs or (_alike(row, inputs[0]) and _alike(answer, answers[0]))
            if not fits or len(inputs) == _MOST_ROWS or (inputs and more > _MOST_BYTES):
                left_out += 1
                continue
            size = more
            inputs.append(row)
            answers.append(answer)
    if not inputs:
        return ReplayReply(left_out=left_out)
    save_arrays(request.probes / f"{GOLDEN}.npz", _joined(inputs))
    save_arrays(request.answers / f"{GOLDEN}.npz", _joined(answers))
    about = f"rows on which version {request.version} was proven, and no other probe holds"
    probe = ProbeInfo(name=GOLDEN, rows=len(inputs), about=about)
    return ReplayReply(probe=probe, left_out=left_out)


def _rows(arrays: Arrays) -> list[Arrays]:
    count = len(next(iter(arrays.values())))
    return [{name: each[i] for name, each in arrays.items()} for i in range(count)]


def _digest(row: Arrays) -> tuple[tuple[str, str, bytes], ...]:
    """Return what tells a row from others; short where the row is."""
    import hashlib

    return tuple(
        (name, f"{each.dtype.kind}{np.shape(each)}", hashlib.sha256(_bytes(each)).digest())
        for name, each in sorted(row.items())
    )


def _bytes(array: NDArray[Any]) -> bytes:
    """Return the content; words of one array are padded to its longest, so text is not raw."""
    plain = np.asarray(array)
    if plain.dtype.kind == "U":
        return "\0".join(map(str, plain.ravel().tolist())).encode()
    return np.ascontiguousarray(plain).tobytes()


def _alike(one: Arrays, other: Arrays) -> bool:
    def shape(row: Arrays) -> dict[str, tuple[int, ...]]:
        return {name: np.shape(each) for name, each in row.items()}

    return shape(one) == shape(other)


def _joined(rows: list[Arrays]) -> Arrays:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


class SourceDriftRequest(Value):
    """Whose answers are compared: the source's own, then and now."""

    recipe: Recipe
    now: Path
    """Folder of ``<probe>.npz``."""
    then: Path
    names: tuple[str, ...]
    """Probes with the same rows in both."""


class SourceDriftReply(Value):
    """What was found."""

    outputs: tuple[SourceDrift, ...]


def compare_source(request: SourceDriftRequest) -> SourceDriftReply:
    """Compare the source's answers to the same rows, in the last release and in this run."""
    found = []
    pairs = [
        (load_arrays(request.now / f"{name}.npz"), load_arrays(request.then / f"{name}.npz"))
        for name in request.names
    ]
    for spec in request.recipe.signature.outputs:
        both = [(now[spec.name], then[spec.name]) for now, then in pairs if spec.name in then]
        drifts = [_drift(now, then, spec.role) for now, then in both]
        largest = [each for each, _ in drifts if each is not None]
        found.append(
            SourceDrift(
                output=spec.name,
                rows=sum(len(now) for now, _ in both),
                max_abs=max(largest) if largest else None,
                changed=sum(changed for _, changed in drifts),
            )
        )
    return SourceDriftReply(outputs=tuple(found))


def _drift(now: NDArray[Any], then: NDArray[Any], role: str) -> tuple[float | None, int]:
    """Return the largest difference, and how many rows are answered otherwise."""
    if now.shape != then.shape:
        return None, len(now)
    rows = len(now)
    if now.dtype.kind != "f" or then.dtype.kind != "f":
        return None, int((now != then).reshape(rows, -1).any(axis=1).sum())
    one, two = (each.reshape(rows, -1).astype(np.float64) for each in (now, then))
    with np.errstate(invalid="ignore"):
        apart = np.where((one == two) | (np.isnan(one) & np.isnan(two)), 0.0, np.abs(one - two))
    largest = float(np.max(apart[np.isfinite(apart)], initial=0.0))
    if role in {"logits", "probabilities"}:
        changed = one.argmax(axis=1) != two.argmax(axis=1)
    else:
        changed = (apart != 0).any(axis=1)
    return largest, int(changed.sum())
