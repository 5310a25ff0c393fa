"""Cut a failing probe down to the few rows that show the fault."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.comparison import compare_probe
from tasks.domain.noise import Truth
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.steps.float64 import ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

MOST_ROWS = 4
"""Rows that are kept; one would hide what depends on the batch."""
_MOST_SCANNED = 256
"""``beside-splits`` has 128 rows at most, and may be wrong in the last of them alone."""


class CutRequest(Value):
    """Which probe, and who answered it how."""

    recipe: Recipe
    probe: str
    inputs: Path
    """Folder of ``<probe>.npz``."""
    reference: Path
    """Folder of the source's answers, likewise."""
    answers: Path
    """Folder of the candidate's; it may have given none."""
    float64: Path | None = None
    """Folder of the source's answers in float64, where it gave any."""
    folder: Path
    """Where ``inputs``, ``answers`` and ``float64`` of the kept rows go."""


class CutReply(Value):
    """Which rows were kept."""

    rows: tuple[int, ...]
    """By their place in the whole probe, rising; never empty."""
    worst: int
    """The one that shows the fault most, by its place in the whole probe."""


def cut_rows(request: CutRequest) -> CutReply:
    """Keep the rows whose answers stray most, and a neighbour where one row alone fails.

    Where the candidate gave no answers, or no single row is wrong, the first rows are kept.
    """
    inputs = load_arrays(request.inputs / f"{request.probe}.npz")
    reference = load_arrays(request.reference / f"{request.probe}.npz")
    count = len(next(iter(inputs.values())))
    ranked: list[int] = []
    if (request.answers / f"{request.probe}.npz").exists():
        answers = load_arrays(request.answers / f"{request.probe}.npz")
        ranked = _worst_first(request, reference, answers, count)
    kept = ranked[:MOST_ROWS]
    kept += [row for row in range(count) if row not in kept][: max(0, 2 - len(kept))]
    if not ranked:
        kept = list(range(min(count, MOST_ROWS)))
    rows = sorted(kept)
    for name, arrays in (("inputs", inputs), ("answers", reference)):
        (request.folder / name).mkdir()
        save_arrays(
            request.folder / name / f"{request.probe}.npz",
            {key: each[rows] for key, each in arrays.items()},
        )
    _keep_float64(request, rows)
    return CutReply(rows=tuple(rows), worst=ranked[0] if ranked else rows[0])


def _truth(request: CutRequest, rows: list[int]) -> Truth | None:
    """Return the float64 answers to ``rows``, numbered by their place among them."""
    path = request.float64 / f"{request.probe}.npz" if request.float64 else None
    if path is None or not path.is_file():
        return None
    arrays = load_arrays(path)
    answered = arrays.pop(ROWS).tolist()
    at = [answered.index(row) for row in rows if row in answered]
    if not at:
        return None
    places = np.array([rows.index(answered[i]) for i in at])
    return Truth(rows=places, answers={key: each[at] for key, each in arrays.items()})


def _keep_float64(request: CutRequest, rows: list[int]) -> None:
    (request.folder / "float64").mkdir()
    if truth := _truth(request, rows):
        path = request.folder / "float64" / f"{request.probe}.npz"
        save_arrays(path, {**truth.answers, ROWS: truth.rows})


def _worst_first(request: CutRequest, reference: Arrays, answers: Arrays, count: int) -> list[int]:
    """Return the rows that fail by themselves, the worst first."""
    outputs, profile = request.recipe.signature.outputs, request.recipe.parity.profile
    found = []
    for row in range(min(count, _MOST_SCANNED)):
        mine, theirs = (
            {name: np.atleast_1d(each)[row : row + 1] for name, each in side.items()}
            for side in (reference, answers)
        )
        compared = compare_probe(
            request.probe, outputs, mine, theirs, profile, _truth(request, [row])
        )
        if not compared.passed:
            found.append((max(map(_badness, compared.outputs)), row))
    return [row for _, row in sorted(found, key=lambda each: (-each[0], each[1]))]


def _badness(output: Any) -> float:  # noqa: ANN401 - OutputParity
    if output.passed:
        return 0.0
    if output.non_finite_mismatched or output.errors is None:
        return float("inf")
    return float(output.errors.budget)
