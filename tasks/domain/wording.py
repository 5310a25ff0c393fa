"""Why numbers do not agree, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.domain.parity import FaultKind, NoiseParity, RankAgreement
    from tasks.domain.spread import Stray, Worst

_TWO_DIGITS = 10


def number_problems(stray: Stray, total: int) -> list[tuple[FaultKind, str]]:
    """Say what is non-finite on one side only, and what strays beyond the tolerance."""
    problems: list[tuple[FaultKind, str]] = []
    if stray.non_finite_mismatched and stray.first_non_finite:
        words = (
            f"{stray.non_finite_mismatched:,} of {total:,} elements are NaN or infinite on one "
            f"side only (first {_place(stray.first_non_finite)})"
        )
        problems.append(("non-finite", words))
    beyond = stray.mismatched - stray.non_finite_mismatched
    if beyond and stray.errors and stray.worst:
        words = (
            f"{beyond:,} of {total:,} elements stray beyond the tolerance (worst "
            f"{_place(stray.worst)}, {times(stray.errors.budget)} what is allowed)"
        )
        problems.append(("numbers", words))
    return problems


def noise_problems(noise: NoiseParity | None) -> list[tuple[FaultKind, str]]:
    """Say how many times the source's own error a candidate's is, where that is too many."""
    if noise is None or noise.passed or not noise.bound_max or not noise.bound_rms:
        return []
    found = [
        f"{name} {times(ratio)} that of the source's own float32 (at most {bound:g})"
        for name, ratio, bound in (
            ("largest", noise.ratio_max, noise.bound_max),
            ("RMS", noise.ratio_rms, noise.bound_rms),
        )
        if ratio > bound
    ]
    return [("numbers", f"error against float64 is too large: {', '.join(found)}")]


def rank_problems(ranks: RankAgreement | None) -> list[tuple[FaultKind, str]]:
    """Say in how many rows the best classes differ."""
    if ranks is None or ranks.top5_equal == ranks.rows:
        return []
    first = ranks.rows - ranks.top1_equal
    fifth = ranks.rows - ranks.top5_equal
    words = f"the best class differs in {first} of {ranks.rows} rows, the best five in {fifth}"
    return [("ranks", words)]


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
