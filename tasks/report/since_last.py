"""How a release compares with the one before it, in lines for its pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.domain.release import Release


def since_last(release: Release | None) -> list[tuple[str, str, bool]]:
    """Return what is compared, the comparison in words, and whether it deserves a look."""
    if release is None:
        return []
    lines = []
    if replay := release.reference.replay:
        moved = any(each.changed for each in replay.source)
        lines.append(("golden samples", replay.summary(), moved))
    for each in release.candidates:
        if each.drift:
            label = each.verified.artifact.format.label
            lines += [(label, line, False) for line in each.drift.lines()]
            lines += [(label, flag, True) for flag in each.drift.flags]
    return lines
