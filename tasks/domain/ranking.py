"""Do two sets of scores put the classes in the same order, ties aside?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.domain.parity import RankAgreement
from tasks.domain.spread import allowed, row_scales

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.parity import Tolerance

_BEST = 5


def compare_ranks(
    reference: NDArray[np.generic], candidate: NDArray[np.generic], tolerance: Tolerance
) -> RankAgreement:
    """Compare the order of the best classes of each row.

    Where the orders differ, a row still counts as equal if at each rank the candidate's class
    and the reference's class have *reference* scores closer than the tolerance: either order
    is then right. Such rows are counted as ``ties_swapped``.

    Args:
        reference: Scores, shape (rows, classes), real.
        candidate: Likewise.
        tolerance: What the scores are held to; it also says how close a tie is.
    """
    right = reference.astype(np.float64)
    best, other = _best(right), _best(candidate.astype(np.float64))
    expected, got = np.take_along_axis(right, best, 1), np.take_along_axis(right, other, 1)
    limit = allowed(expected, row_scales(reference)[:, None], tolerance)
    with np.errstate(invalid="ignore"):
        tied = (expected == got) | (np.abs(expected - got) <= limit)
    same = (best == other) | (np.isnan(expected) & np.isnan(got))
    in_order, but_for_ties = same.all(axis=1), (same | tied).all(axis=1)
    return RankAgreement(
        rows=len(right),
        top1_equal=int(np.count_nonzero((same | tied)[:, 0])),
        top5_equal=int(np.count_nonzero(but_for_ties)),
        ties_swapped=int(np.count_nonzero(but_for_ties & ~in_order)),
    )


def tied_labels(
    labels: NDArray[np.generic],
    candidate: NDArray[np.generic],
    scores: NDArray[np.generic],
    tolerance: Tolerance,
) -> NDArray[np.bool_]:
    """Tell which rows have best scores so close that either label is right.

    Which label belongs to which score is learned from the rows without a tie; a candidate's
    label that is known to belong to a score outside the tie is no tie.

    Args:
        labels: The reference's labels, shape (rows,).
        candidate: The candidate's labels, shape (rows,).
        scores: The reference's scores, shape (rows, classes).
        tolerance: What the scores are held to.

    Returns:
        Shape (rows,).
    """
    table = scores.astype(np.float64)
    top = table.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        close = (top - table) <= allowed(top, row_scales(scores)[:, None], tolerance)
    tie: NDArray[np.bool_] = close.sum(axis=1) > 1
    sure = np.flatnonzero(~tie & np.isfinite(top[:, 0]))
    known = {labels[i].item(): int(table[i].argmax()) for i in sure}
    for i in np.flatnonzero(tie & (labels != candidate)):
        column = known.get(candidate[i].item())
        tie[i] = column is None or close[i, column]
    return tie


def _best(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the columns of the best scores, best first; of equal ones the first; NaN last."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :_BEST]
