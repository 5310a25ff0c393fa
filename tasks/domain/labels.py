"""What must be equal: labels, whole numbers, booleans and text, but for labels that tie."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.domain.ranking import tied_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.parity import FaultKind, Tolerance

    Array = NDArray[np.generic]


class Scores(NamedTuple):
    """The reference's scores, by which a differing label may prove to be a tie."""

    values: NDArray[np.generic]
    """Shape (rows, classes)."""
    tolerance: Tolerance


def compare_labels(
    reference: Array, candidate: Array, scores: Scores | None
) -> tuple[tuple[tuple[FaultKind, str], ...], int, int]:
    """Hold every element to equality; NaN equals NaN.

    Args:
        reference: First axis the rows.
        candidate: Likewise, of the same shape.
        scores: By which differing labels, one a row, may prove to be ties.

    Returns:
        What is wrong, how many elements differ, and how many rows differ by a tie.
    """
    rows = reference.shape[0] if reference.ndim else 1
    left, right = (_plain(each).reshape(rows, -1) for each in (reference, candidate))
    differs = left != right
    if left.dtype.kind == "f" and right.dtype.kind == "f":
        differs &= ~(np.isnan(left) & np.isnan(right))
    tied = np.zeros(rows, np.bool_)
    if scores and left.shape == (len(scores.values), 1):
        tied = tied_labels(left[:, 0], right[:, 0], scores.values, scores.tolerance)
    wrong = differs & ~tied[:, None]
    problems: tuple[tuple[FaultKind, str], ...] = ()
    if wrong.any():
        row, element = np.unravel_index(int(wrong.argmax()), wrong.shape)
        first = f"expected {left[row, element]!s:.40}, got {right[row, element]!s:.40}"
        place = f"first at row {row}, element {element}: {first}"
        words = f"{np.count_nonzero(wrong):,} of {wrong.size:,} differ ({place})"
        problems = (("labels", words),)
    ties = int(np.count_nonzero(differs.any(axis=1) & tied))
    return problems, int(np.count_nonzero(wrong)), ties


def _plain(array: Array) -> Array:
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")  # type: ignore[arg-type]  # kind S is bytes
    return array.astype(np.str_) if array.dtype.kind in "OT" else array
