"""What the pages say of variants: boxes below the ONNX model, and a line of a table for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.report.figures import share, size

if TYPE_CHECKING:
    from tasks.domain.release import Release
    from tasks.domain.variants import VariantOutcome

_ROW, _LEFT, _WIDTH = 84, 158, 230
_LONGEST = 34
"""Characters that fit into a box."""


@dataclass(frozen=True)
class VariantNode:
    """One variant in the picture of the release, and in the table below it."""

    x: int
    y: int
    title: str
    folder: str
    lines: tuple[str, ...]
    verdict: str
    """``pass`` or ``fail``."""
    size: str
    pace: str
    budget: str
    task: str
    reason: str


def variant_nodes(release: Release | None, x: int, top: int) -> tuple[VariantNode, ...]:
    """Return the variants of a release, one below the other.

    Args:
        release: What the run proved; None where it failed before.
        x: Where their parent stands.
        top: Where the first of them may begin.
    """
    made = release.variants if release else ()
    return tuple(_node(each, x + _LEFT, top + _ROW * i) for i, each in enumerate(made))


def room_for(nodes: tuple[VariantNode, ...]) -> dict[str, int]:
    """Return how much higher the picture becomes, and how wide it must be at least."""
    width = max((each.x for each in nodes), default=-_WIDTH) + _WIDTH + 8
    return {"variants": _ROW * len(nodes), "branch": width}


def _node(made: VariantOutcome, x: int, y: int) -> VariantNode:
    took = (
        f"{size(made.size_bytes)} ({made.size_bytes / made.parent_bytes:.0%})"
        if made.size_bytes is not None
        else ""
    )
    pace = f"{made.race.ratio:.2f} x" if made.race else ""
    second = f"{made.race.ratio:.2f} x its time a row" if made.race else "not timed"
    if not made.released:
        second = f"refused: {made.reason}"
    return VariantNode(
        x=x,
        y=y,
        title=f"{made.parent.label} {made.kind}",
        folder=made.folder if made.released else "",
        lines=tuple(_cut(line) for line in (took or "not made", second)),
        verdict="pass" if made.released else "fail",
        size=took,
        pace=pace,
        budget=share(made.parity.budget) if made.parity else "",
        task=made.agreement.words() if made.agreement else "",
        reason="; ".join([made.reason, *made.notes]),
    )


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
