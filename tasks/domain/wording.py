"""Why numbers do not agree, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.domain.parity import RankAgreement
    from tasks.domain.spread import Stray, Worst

_TWO_DIGITS = 10


def number_problems(stray: Stray, total: int) -> list[str]:
    """Say what is non-finite on one side only, and what strays beyond the tolerance."""
    problems = []
    if stray.non_finite_mismatched and stray.first_non_finite:
        problems.append(
            f"{stray.non_finite_mismatched:,} of {total:,} elements are NaN or infinite on one "
            f"side only (first {_place(stray.first_non_finite)})"
        )
    beyond = stray.mismatched - stray.non_finite_mismatched
    if beyond and stray.errors and stray.worst:
        problems.append(
            f"{beyond:,} of {total:,} elements stray beyond the tolerance (worst "
            f"{_place(stray.worst)}, {times(stray.errors.budget)} what is allowed)"
        )
    return problems


def rank_problems(ranks: RankAgreement | None) -> list[str]:
    """Say in how many rows the best classes differ."""
    if ranks is None or ranks.top5_equal == ranks.rows:
        return []
    first = ranks.rows - ranks.top1_equal
    fifth = ranks.rows - ranks.top5_equal
    return [f"the best class differs in {first} of {ranks.rows} rows, the best five in {fifth}"]


def times(factor: float) -> str:
    """Write a factor, such as ``1.25 times`` or ``18,700 times``."""
    if math.isinf(factor):
        return "infinite times"
    return f"{factor:,.0f} times" if factor >= _TWO_DIGITS else f"{factor:.2f} times"


def _place(worst: Worst) -> str:
    return (
        f"at row {worst.row}, element {worst.element}: "
        f"expected {worst.reference:.6g}, got {worst.candidate:.6g}"
    )
