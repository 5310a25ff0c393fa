"""Where NaN and infinity stand in two answers, summarised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.domain.parity import NonFiniteMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FIRST = 5


def map_non_finite(
    reference: NDArray[np.generic], candidate: NDArray[np.generic]
) -> NonFiniteMap | None:
    """Return where either side is NaN or infinite; None where both are finite throughout.

    Args:
        reference: First axis the rows, real numbers of any dtype.
        candidate: Likewise, of the same shape.
    """
    rows = reference.shape[0] if reference.ndim else 1
    sides = [each.reshape(rows, -1) for each in (reference, candidate)]
    sides = [each if each.dtype.kind == "f" else each.astype(np.float64) for each in sides]
    holes = ~np.isfinite(sides[0]) | ~np.isfinite(sides[1])
    if not holes.any():
        return None
    by_row, by_element = np.flatnonzero(holes.any(axis=1)), np.flatnonzero(holes.any(axis=0))
    nans = [int(np.count_nonzero(np.isnan(each))) for each in sides]
    infinite = [int(np.count_nonzero(np.isinf(each))) for each in sides]
    return NonFiniteMap(
        reference_nan=nans[0],
        reference_infinite=infinite[0],
        candidate_nan=nans[1],
        candidate_infinite=infinite[1],
        row_count=len(by_row),
        rows=tuple(map(int, by_row[:_FIRST])),
        element_count=len(by_element),
        elements=tuple(map(int, by_element[:_FIRST])),
    )
