"""Upkeep's values as rows of words, alike in Prefect and in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.domain.difference import Change, Difference, Scalar
    from tasks.domain.findings import BucketReport
    from tasks.domain.garbage import GarbagePlan
    from tasks.domain.release import Alias
    from tasks.domain.versions import VersionInfo

Rows: TypeAlias = list[dict[str, str]]

_DIGEST = 64


def alias_rows(aliases: Mapping[str, Alias]) -> Rows:
    """Say where each alias stands."""
    return [
        {
            "alias": name,
            "version": str(alias.version),
            "since": f"{alias.moved:%Y-%m-%d %H:%M}",
            "by": alias.by,
            "how": alias.how,
            "reason": alias.reason,
        }
        for name, alias in aliases.items()
    ]


def history_rows(alias: Alias) -> Rows:
    """Say every move of an alias, the youngest first."""
    return [
        {
            "moved": f"{move.moved:%Y-%m-%d %H:%M:%S}",
            "version": str(move.version),
            "how": move.how,
            "by": move.by,
            "reason": move.reason,
            "manifest": move.manifest_sha256[:12],
        }
        for move in alias.moves
    ]


def version_rows(versions: tuple[VersionInfo, ...]) -> Rows:
    """Say what is known of each version of a model, the youngest first."""
    return [
        {
            "version": str(each.version),
            "state": each.state,
            "created": f"{each.created:%Y-%m-%d %H:%M}" if each.created else "",
            "MB": f"{each.size_bytes / 1e6:,.1f}",
            "needed by": each.needed,
        }
        for each in versions
    ]


def difference_rows(difference: Difference) -> Rows:
    """Say each change, topic by topic."""
    return [
        {
            "topic": each.topic,
            "name": each.name,
            str(difference.before): _words(each.before),
            str(difference.after): _words(each.after),
            "factor": _factor(each),
        }
        for each in difference.changes
    ]


def plan_rows(plan: GarbagePlan) -> Rows:
    """Say of each thing whether it goes or stays, and why."""
    gone = [
        {"": "remove", "key": each.key, "MB": f"{each.size_bytes / 1e6:,.1f}", "why": each.why}
        for each in plan.removals
    ]
    kept = [{"": "keep", "key": each.key, "MB": "", "why": each.why} for each in plan.kept]
    refused = [{"": "refuse", "key": "", "MB": "", "why": why} for why in plan.refused]
    return gone + kept + refused


def finding_rows(report: BucketReport) -> Rows:
    """Say each finding."""
    return [each.model_dump() for each in report.findings]


def _words(value: Scalar) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text[:12] if len(text) == _DIGEST else text


def _factor(change: Change) -> str:
    return "" if change.factor is None else f"x{change.factor:.3g}"
