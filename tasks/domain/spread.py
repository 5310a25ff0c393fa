"""How far two arrays stray, block by block, so that a large output needs little memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.domain.parity import DECADES, ErrorSpread, RowError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tasks.domain.parity import Tolerance

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

_BLOCK_ELEMENTS = 1 << 18
_REL_FLOOR = 1e-3
_TAIL = 0.001
_WORST_ROWS = 5


@dataclass(frozen=True)
class Worst:
    """The element that uses the largest share of its tolerance."""

    row: int
    element: int
    """Position within the flattened row."""
    reference: float
    candidate: float


@dataclass(frozen=True)
class Stray:
    """What comparing the numbers of one output found."""

    errors: ErrorSpread | None
    """``None`` where no element is finite on both sides."""
    mismatched: int
    """Elements beyond the tolerance, with those that are non-finite on one side."""
    non_finite_mismatched: int
    non_finite_agreed: int
    worst: Worst | None
    first_non_finite: Worst | None
    worst_rows: tuple[RowError, ...] = ()


def measure(
    reference: NDArray[np.generic], candidate: NDArray[np.generic], tolerance: Tolerance
) -> Stray:
    """Compare two arrays of one shape, in float64.

    Args:
        reference: Real numbers of any dtype, first axis the rows; not empty.
        candidate: Likewise, of the same shape.
        tolerance: What every element is held to.
    """
    rows = reference.shape[0] if reference.ndim else 1
    left, right = reference.reshape(rows, -1), candidate.reshape(rows, -1)
    meter = _Meter(_scales(left), _scales(right), tolerance, total=reference.size)
    for where in _blocks(*left.shape):
        meter.add(where, left[where].astype(np.float64), right[where].astype(np.float64))
    return meter.result()


def row_scales(array: NDArray[np.generic]) -> Floats:
    """Return the largest finite magnitude of each row, shape (rows,), float64; 0 for none."""
    return _scales(array.reshape(array.shape[0] if array.ndim else 1, -1))


def allowed(reference: Floats, scales: Floats, tolerance: Tolerance) -> Floats:
    """Return how far each element may stray: ``rtol * |r| + scale * max|row| + floor``."""
    return tolerance.rtol * np.abs(reference) + tolerance.scale * scales + tolerance.floor


def _blocks(rows: int, width: int) -> Iterator[tuple[slice, slice]]:
    high = max(1, _BLOCK_ELEMENTS // max(1, width))
    for top in range(0, rows, high):
        for start in range(0, width, _BLOCK_ELEMENTS):
            yield (
                slice(top, min(top + high, rows)),
                slice(start, min(start + _BLOCK_ELEMENTS, width)),
            )


def _scales(table: NDArray[np.generic]) -> Floats:
    scales = np.zeros(table.shape[0])
    for where in _blocks(*table.shape):
        block = np.abs(table[where].astype(np.float64))
        block[~np.isfinite(block)] = 0
        scales[where[0]] = np.maximum(scales[where[0]], block.max(axis=1, initial=0))
    return np.maximum(scales, typical_magnitude(table))


def typical_magnitude(table: NDArray[np.generic]) -> float:
    """Return the median finite magnitude of a table of one column; 0 for wider ones.

    A row of one number has no other element to set its scale, and a number that lies near zero
    by chance, such as a decision between two classes, is a difference of larger ones.

    Args:
        table: Real numbers, shape (rows, elements).
    """
    if table.shape[1] != 1 or not len(table):
        return 0.0
    column = np.abs(table[:, 0].astype(np.float64))
    finite = column[np.isfinite(column)]
    return float(np.median(finite)) if len(finite) else 0.0


def _share(part: Floats, whole: Floats) -> Floats:
    """Divide; nothing of nothing is 0, something of nothing is infinite."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(part == 0, 0.0, part / whole)


class _Meter:
    """Running figures over the blocks of one output."""

    def __init__(self, left: Floats, right: Floats, tolerance: Tolerance, total: int) -> None:
        self._scales = left
        # cosines are taken of rows divided by their largest, so that no square overflows
        self._units = (np.where(left > 0, left, 1.0), np.where(right > 0, right, 1.0))
        self._tolerance = tolerance
        self._products = np.zeros((3, len(left)))
        self._tail = np.empty(0)
        self._tail_size = int(_TAIL * total) + 2
        self._finite = self._mismatched = self._one_sided = self._agreed = 0
        self._sum = self._max_abs = self._max_rel = self._budget = 0.0
        self._worst: Worst | None = None
        self._first: Worst | None = None
        # of each row: largest error, sum of squares, largest share, finite elements
        self._rows = np.zeros((4, len(left)))
        self._histogram = np.zeros(len(DECADES) + 2, np.int64)

    def add(self, where: tuple[slice, slice], left: Floats, right: Floats) -> None:
        finite = np.isfinite(left) & np.isfinite(right)
        if not finite.all():
            self._count_non_finite(where, left, right, finite)
            left, right = np.where(finite, left, 0.0), np.where(finite, right, 0.0)
        with np.errstate(over="ignore"):
            error = np.abs(right - left)
        self._count_errors(where, left, right, error)
        self._count_decades(where, error, finite)
        self._finite += int(np.count_nonzero(finite))
        self._keep_tail(error[finite])
        one, two = (each[where[0], None] for each in self._units)
        a, b = left / one, right / two
        self._products[:, where[0]] += [(a * b).sum(1), (a * a).sum(1), (b * b).sum(1)]

    def _count_non_finite(
        self, where: tuple[slice, slice], left: Floats, right: Floats, finite: Flags
    ) -> None:
        alike = ~finite & ((np.isnan(left) & np.isnan(right)) | (left == right))
        stray = ~finite & ~alike
        self._agreed += int(np.count_nonzero(alike))
        self._one_sided += int(np.count_nonzero(stray))
        if self._first is None and stray.any():
            self._first = _element(where, left, right, int(stray.argmax()))

    def _count_errors(
        self, where: tuple[slice, slice], left: Floats, right: Floats, error: Floats
    ) -> None:
        scales = self._scales[where[0], None]
        limit = allowed(left, scales, self._tolerance)
        self._mismatched += int(np.count_nonzero(error > limit))
        share = _share(error, limit)
        largest = float(share.max())
        if self._worst is None or largest > self._budget:
            self._worst = _element(where, left, right, int(share.argmax()))
        self._budget = max(self._budget, largest)
        self._max_abs = max(self._max_abs, float(error.max()))
        self._add_to_rows(where[0], error, share)
        relative = _share(error, np.maximum(np.abs(left), _REL_FLOOR * scales))
        self._max_rel = max(self._max_rel, float(relative.max()))
        self._sum += float(error.sum())

    def _add_to_rows(self, rows: slice, error: Floats, share: Floats) -> None:
        largest, squares, shares, _ = self._rows[:, rows]
        np.maximum(largest, error.max(axis=1), out=largest)
        np.maximum(shares, share.max(axis=1), out=shares)
        with np.errstate(over="ignore"):
            squares += (error * error).sum(axis=1)

    def _count_decades(self, where: tuple[slice, slice], error: Floats, finite: Flags) -> None:
        self._rows[3, where[0]] += finite.sum(axis=1)
        relative = _share(error, self._scales[where[0], None])[finite]
        exact = int(np.count_nonzero(relative == 0))
        counts = np.bincount(
            np.searchsorted(DECADES, relative, side="right") + 1, minlength=len(self._histogram)
        )
        counts[0], counts[1] = exact, counts[1] - exact
        self._histogram += counts

    def _worst_rows(self) -> tuple[RowError, ...]:
        largest, squares, shares, finite = self._rows
        order = np.argsort(-shares, kind="stable")[:_WORST_ROWS]
        return tuple(
            RowError(
                row=int(i),
                max_abs=float(largest[i]),
                rmse=float(np.sqrt(squares[i] / max(1.0, finite[i]))),
                budget=float(shares[i]),
            )
            for i in order
            if largest[i] > 0
        )

    def _keep_tail(self, error: Floats) -> None:
        """Keep the largest errors: all that the 99.9th percentile needs, exactly."""
        self._tail = np.concatenate([self._tail, error])
        if len(self._tail) > self._tail_size:
            cut = len(self._tail) - self._tail_size
            self._tail = np.partition(self._tail, cut)[cut:]

    def _p999(self) -> float:
        position = (1 - _TAIL) * (self._finite - 1)
        below = int(position)
        largest = np.sort(self._tail)[::-1]
        low = largest[self._finite - 1 - below]
        high = largest[max(0, self._finite - 2 - below)]
        part = position - below
        return float(low if part == 0 or low == high else low + (high - low) * part)

    def _cosine(self) -> float:
        dot, left, right = self._products
        both, one = (left > 0) & (right > 0), (left > 0) ^ (right > 0)
        length = np.sqrt(np.where(both, left, 1.0)) * np.sqrt(np.where(both, right, 1.0))
        cosines = np.where(both, dot / length, np.where(one, 0.0, 1.0))
        return float(np.clip(cosines.min(initial=1.0), -1.0, 1.0))

    def result(self) -> Stray:
        errors = None
        if self._finite:
            errors = ErrorSpread(
                max_abs=self._max_abs,
                max_rel=self._max_rel,
                mean_abs=self._sum / self._finite,
                p999_abs=self._p999(),
                cosine=self._cosine(),
                budget=self._budget,
                rmse=float(np.sqrt(self._rows[1].sum() / self._finite)),
                histogram=tuple(map(int, self._histogram)),
            )
        return Stray(
            errors=errors,
            mismatched=self._mismatched + self._one_sided,
            non_finite_mismatched=self._one_sided,
            non_finite_agreed=self._agreed,
            worst=self._worst,
            first_non_finite=self._first,
            worst_rows=self._worst_rows(),
        )


def _element(where: tuple[slice, slice], left: Floats, right: Floats, flat: int) -> Worst:
    row, column = divmod(flat, left.shape[1])
    return Worst(
        row=where[0].start + row,
        element=where[1].start + column,
        reference=float(left[row, column]),
        candidate=float(right[row, column]),
    )
