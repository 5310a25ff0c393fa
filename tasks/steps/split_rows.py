"""Rows right beside the splits of a scikit-learn model's trees, where rounding decides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.recipe import Recipe
from tasks.domain.release import ProbeInfo
from tasks.domain.signature import InputSpec, Range
from tasks.domain.value import Value
from tasks.runners.sklearn_files import load_estimator
from tasks.runners.sklearn_runner import SklearnRunner
from tasks.steps.draw import bounds
from tasks.steps.splits import from_keys, last_below, splits_of, to_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.runners.sklearn_files import Estimator
    from tasks.steps.splits import Floats, Splits

Rows: TypeAlias = "NDArray[Any]"

BESIDE_SPLITS = "beside-splits"

_TRIED = 1_024
"""Splits that are looked at, each in a row of its own."""
_SEARCHED = 256
"""Pairs of rows between which an answer's turn is searched: the whole model runs for each step."""
_KEPT = 64
"""Places that are kept: those whose two sides answer differently come first."""
_AFFINE = {"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"}
"""Steps before a tree by which a column follows from the same column, and grows with it."""
_MARGIN = 16
"""Behind a scaler: how many roundings of the largest number off the split, for its own rounding
differs from runtime to runtime."""


class SplitRowsRequest(Value):
    """Beside whose splits rows are wanted."""

    recipe: Recipe
    model: Path
    """The source model's folder."""
    probes: Path
    """Folder of ``<probe>.npz``, where ``beside-splits.npz`` is written too."""
    names: tuple[str, ...]
    """The probes that hold rows to start from."""


class SplitRowsReply(Value):
    """The probe that was made, if the model has splits."""

    probe: ProbeInfo | None = None


def make_split_rows(request: SplitRowsRequest) -> SplitRowsReply:
    """Write rows at splits of the model's trees, and at the next floats below and above.

    A row is one of the other probes' with one column moved to where the model's decision turns.
    Where steps other than scalers stand before the trees, that place is found by bisection
    between two rows that are answered differently. The same recipe gives the same rows.

    Raises:
        VerificationError: The model does not load.
    """
    recipe = request.recipe
    spec = recipe.signature.inputs[0]
    if len(spec.shape) != 2 or spec.dtype not in {"float32", "float64"}:  # noqa: PLR2004 - a table
        return SplitRowsReply()
    estimator = load_estimator(recipe, request.model)
    before, last = _parts(estimator)
    splits = splits_of(last)
    if splits is None or not isinstance(spec.domain, Range):
        return SplitRowsReply()
    base = _base(request, spec)
    runner = SklearnRunner(recipe, estimator)
    rng = np.random.default_rng(recipe.parity.seed)
    if all(type(each).__name__ in _AFFINE for each in before):
        pairs = _at_thresholds(spec, splits, before, base, rng)
        way = "at splits of its trees" if not before else "beside splits of its trees"
    else:
        pairs = _where_answers_turn(runner, spec, base, rng)
        way = "where its answer turns between two rows"
    below, above = _telling(runner, spec, *pairs)
    if not len(below):
        return SplitRowsReply()
    rows = np.concatenate([_further(below, above), below, above])
    save_arrays(request.probes / f"{BESIDE_SPLITS}.npz", {spec.name: rows})
    about = f"{len(below)} places {way}, and the floats next to them"
    return SplitRowsReply(probe=ProbeInfo(name=BESIDE_SPLITS, rows=len(rows), about=about))


def _parts(estimator: Estimator) -> tuple[list[Estimator], Estimator]:
    """Return the steps before the last one, and that."""
    steps: list[Estimator] = [estimator]
    while hasattr(steps[-1], "steps"):
        steps[-1:] = [each for _, each in steps[-1].steps if each not in ("passthrough", None)]
    return steps[:-1], steps[-1]


def _base(request: SplitRowsRequest, spec: InputSpec) -> Rows:
    rows = [load_arrays(request.probes / f"{name}.npz")[spec.name] for name in request.names]
    return np.concatenate(rows)


def _at_thresholds(
    spec: InputSpec, splits: Splits, before: list[Estimator], base: Rows, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Return pairs of rows, the last that goes left at a split and the first that goes right."""
    chosen = rng.integers(len(splits.features), size=_TRIED)
    features, thresholds = splits.features[chosen], splits.thresholds[chosen]
    rows = base[rng.integers(len(base), size=_TRIED)]

    def goes_left(values: Floats) -> NDArray[np.bool_]:
        table = _moved(rows, features, values)
        for each in before:
            table = each.transform(table)
        column = np.asarray(table)[np.arange(len(table)), features].astype(splits.compares)
        return np.asarray(column.astype(np.float64) <= thresholds)

    low, high = (np.full(len(rows), end, rows.dtype) for end in _range(spec))
    inside = goes_left(low) & ~goes_left(high)
    # what lies outside the domain is searched all the same, and dropped
    left = last_below(low, high, goes_left)
    right = from_keys(to_keys(left) + 1, rows.dtype)
    if before:
        size = np.maximum(np.abs(left), np.abs(base).max(axis=0)[features])
        step = (_MARGIN * np.finfo(rows.dtype).eps * size).astype(rows.dtype)
        left, right = np.maximum(left - step, low), np.minimum(right + step, high)
    kept = np.flatnonzero(inside)
    return _moved(rows, features, left)[kept], _moved(rows, features, right)[kept]


def _where_answers_turn(
    runner: SklearnRunner, spec: InputSpec, base: Rows, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Return pairs of rows that differ in one column, by one float, and in their answers."""
    one, two = (base[rng.integers(len(base), size=_SEARCHED)] for _ in range(2))
    features = rng.integers(base.shape[1], size=_SEARCHED)
    places = np.arange(_SEARCHED), features
    low, high = np.minimum(one[places], two[places]), np.maximum(one[places], two[places])
    start = _answers(runner, spec, _moved(one, features, low))

    def as_at_the_start(values: Floats) -> NDArray[np.bool_]:
        return np.asarray((_answers(runner, spec, _moved(one, features, values)) == start).all(1))

    turns = np.flatnonzero(~as_at_the_start(high))
    left = last_below(low, high, as_at_the_start)
    right = from_keys(to_keys(left) + 1, one.dtype)
    return _moved(one, features, left)[turns], _moved(one, features, right)[turns]


def _telling(runner: SklearnRunner, spec: InputSpec, left: Rows, right: Rows) -> tuple[Rows, Rows]:
    """Return the pairs to keep: first those that the model answers differently."""
    if not len(left):
        return left, right
    same = (_answers(runner, spec, left) == _answers(runner, spec, right)).all(axis=1)
    kept = np.argsort(same, kind="stable")[:_KEPT]
    return left[kept], right[kept]


def _further(below: Rows, above: Rows) -> Rows:
    """Return the rows one float before those that still go left."""
    moved = below != above
    return np.where(moved, np.nextafter(below, 2 * below - above), below)


def _moved(rows: Rows, features: NDArray[np.intp], values: Floats) -> Rows:
    table = rows.copy()
    table[np.arange(len(rows)), features] = values
    return table


def _range(spec: InputSpec) -> tuple[float, float]:
    domain = spec.domain
    if not isinstance(domain, Range):
        message = f"{spec.name}: no range"
        raise TypeError(message)
    low, high = bounds(spec, domain.low, domain.high)
    return float(low), float(high)


def _answers(runner: SklearnRunner, spec: InputSpec, rows: Rows) -> NDArray[Any]:
    """Return all answers to rows side by side, as text where labels are text."""
    answers = runner.run({spec.name: rows})
    return np.concatenate([each.reshape(len(rows), -1) for each in answers.values()], axis=1)
