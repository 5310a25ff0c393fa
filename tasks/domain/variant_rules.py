"""The rules of variants: which rows calibrate and which judge, and when one is worth its place."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from tasks.domain.variants import Race

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.domain.variants import Agreement, VariantSpec

REAL_PROBES = frozenset({"pictures", "held-out", "rows"})
"""Probes of real rows: on these alone is a variant's task judged, and int8's numbers."""

SMALLER = 0.9
"""A variant is smaller if it takes at most this share of its parent's bytes."""
FASTER = 0.9
"""A variant is faster if the median of its times by its parent's is at most this ..."""
WINS = 0.85
"""... and it won at least this share of the pairs. Two of the same speed win so often by chance
in 1 of 58,000 races of 31 pairs, and in 1 of 50 of 9, the fewest; the first bound stands beside
for what is no chance, such as where in memory each came to lie: that alone made a copy of the
digits' network, in bfloat16 and so with the same arithmetic, win 24 pairs of 31 by 18 %."""
_FEWEST_APART = 8
"""Real rows on each side below which none are set apart for calibration."""


@dataclass(frozen=True)
class CalibrationPlan:
    """Which rows the ranges are measured on, and which the variant is then judged on."""

    spare: slice | None
    """Rows of the data that training kept back; None: the probe's own."""
    probe: slice
    """Rows of the real probe for calibration, where ``spare`` is None."""
    judged: int
    """How many of the real probe's rows, from its first, judge it."""
    words: str


def plan_calibration(wanted: int, probe_rows: int, kept_back: int = 0) -> CalibrationPlan:
    """Choose rows for calibration that do not judge, wherever there are enough.

    Args:
        wanted: How many rows may calibrate, at most.
        probe_rows: How many rows the real probe has.
        kept_back: How many rows training kept back; the probe is the first of them.
    """
    spare = min(wanted, kept_back - probe_rows)
    if spare >= min(wanted, _FEWEST_APART):
        words = f"calibrated on {spare} held-out rows, none of the {probe_rows} that judge it"
        rows = slice(probe_rows, probe_rows + spare)
        return CalibrationPlan(spare=rows, probe=slice(0), judged=probe_rows, words=words)
    if probe_rows >= 2 * _FEWEST_APART:
        taken = min(wanted, probe_rows // 2)
        judged = probe_rows - taken
        words = f"calibrated on the last {taken} real rows, judged on the first {judged}"
        return CalibrationPlan(None, slice(judged, probe_rows), judged, words)
    taken = min(wanted, probe_rows)
    words = (
        f"only {probe_rows} real rows, too few to set some apart: calibrated on {taken} of those "
        "that judge it"
    )
    return CalibrationPlan(None, slice(taken), probe_rows, words)


def race_of(pairs: Sequence[tuple[float, float]], on: str) -> Race:
    """Return what a race of pairs (parent's ms, variant's ms) says.

    Args:
        pairs: Each run back to back; at least one.
        on: What ran them.
    """
    ratios = [variant / parent for parent, variant in pairs]
    return Race(
        parent_ms=round(median(parent for parent, _ in pairs), 4),
        variant_ms=round(median(variant for _, variant in pairs), 4),
        ratio=round(median(ratios), 4),
        wins=round(sum(ratio < 1 for ratio in ratios) / len(ratios), 4),
        pairs=len(pairs),
        on=on,
    )


def is_faster(race: Race | None) -> bool:
    """Whether the variant is faster by more than chance and noise explain."""
    return race is not None and race.ratio <= FASTER and race.wins >= WINS


def worth(parent_bytes: int, size_bytes: int, race: Race | None) -> tuple[bool, str]:
    """Decide whether a variant is smaller or faster than its parent, and say why in words.

    Args:
        parent_bytes: The parent's size, above 0.
        size_bytes: The variant's.
        race: How fast it is; None where it was not timed.
    """
    share = size_bytes / parent_bytes
    smaller, faster = share <= SMALLER, is_faster(race)
    size = f"{share:.0%} of its parent's size"
    pace = f"{race.ratio:.2f} times its parent's time a row" if race else "not timed"
    if smaller or faster:
        how = " and ".join(["smaller"] * smaller + ["faster"] * faster)
        return True, f"{how}: {size}, {pace}"
    return False, (
        f"neither smaller nor faster than its parent: {size} (expected at most {SMALLER:.0%}), "
        f"{pace} (expected at most {FASTER}, and faster in {WINS:.0%} of the pairs)"
    )


def task_fault(spec: VariantSpec, agreement: Agreement) -> str:
    """Say how the variant breaks its task's budget; empty if it keeps it."""
    if agreement.rows and agreement.top1_equal < spec.top1_at_least * agreement.rows:
        return (
            f"top-1 agrees with the source on {agreement.top1_equal} of {agreement.rows} rows, "
            f"{agreement.top1_equal / agreement.rows:.1%} (expected at least "
            f"{spec.top1_at_least:.1%}; {agreement.on})"
        )
    if agreement.accuracy is None or agreement.source_accuracy is None:
        return ""
    drop = agreement.source_accuracy - agreement.accuracy
    if drop <= spec.accuracy_drop_at_most:
        return ""
    return (
        f"accuracy drops by {drop:.4f} to {agreement.accuracy:.4f} (expected at most "
        f"{spec.accuracy_drop_at_most:g}; {agreement.on})"
    )
