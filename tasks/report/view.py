"""What the page says, ready to be laid out: plain words and numbers, no rules of layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.report.chart import LEFT, TOTAL, WIDTH, charts
from tasks.report.closeness import closeness
from tasks.report.diagnosis import diagnosis_views
from tasks.report.figures import seconds, share, size
from tasks.report.parity_table import output_cells
from tasks.report.since_last import since_last
from tasks.report.variants_view import room_for, variant_nodes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.domain.artifact import Cost, ModelFormat
    from tasks.domain.diagnosis import Diagnosis
    from tasks.domain.parity import ParityReport, Tolerance
    from tasks.domain.recipe import Recipe
    from tasks.domain.release import Candidate, Release

_PITCH = 340
_FEW_ROWS = 30


@dataclass(frozen=True)
class Node:
    """One format in the picture of the release."""

    x: int
    title: str
    lines: tuple[str, ...]
    verdict: str
    """``source``, ``pass``, ``fail`` or ``none``."""
    by: str
    """The converter that made it."""
    says: str
    """How it compares with the source."""


def page_view(
    recipe: Recipe,
    reports: Sequence[ParityReport],
    release: Release | None,
    failed: str,
    tools: Mapping[str, str],
    diagnoses: Sequence[Diagnosis] = (),
) -> dict[str, Any]:
    """Return everything that the page's template names."""
    titles = _titles(reports)
    latest = {each.candidate: each for each in reports}
    passed = not failed and bool(latest) and all(each.passed for each in latest.values())
    reasons = [
        (title, reason)
        for title, report in zip(titles, reports, strict=True)
        for reason in report.reasons()
        if not passed
    ]
    variants = variant_nodes(release, _PITCH, 94 + 36 * len(recipe.targets))
    geometry = {"left": LEFT, "width": WIDTH, "total": TOTAL, "pitch": _PITCH}
    return {
        "recipe": recipe,
        "passed": passed,
        "failed": failed,
        "headline": _headline(recipe, tuple(latest.values()), passed=passed),
        "reasons": reasons,
        "constant": sorted({name for each in reports for name in each.constant_outputs}),
        "diagnoses": diagnosis_views(diagnoses),
        "nodes": _nodes(recipe, reports, release),
        "titles": titles,
        "charts": charts(reports, titles),
        "geometry": geometry | room_for(variants),
        "variants": variants,
        "close": closeness(reports, titles),
        "tables": _tables(reports, titles),
        "matrices": [(t, each.matrix) for t, each in zip(titles, reports, strict=True)],
        "runtimes": [(t, each.runtime) for t, each in zip(titles, reports, strict=True)],
        "changes": release.standing.changes if release else (),
        "changed_since": release.standing.version if release else None,
        "since_last": since_last(release),
        "facts": _facts(recipe, release),
        "tolerances": _tolerances(reports),
        "probes": release.reference.probes if release else (),
        "attempts": _attempts(release),
        "checks": _checks(release),
        "costs": _costs(release),
        "tools": sorted(tools.items()),
    }


def _titles(reports: Sequence[ParityReport]) -> tuple[str, ...]:
    """Name each report by its format, and by a number where a format was tried again."""
    formats = [each.candidate for each in reports]
    return tuple(
        f"{each.label}, try {formats[: i + 1].count(each)}"
        if formats.count(each) > 1
        else each.label
        for i, each in enumerate(formats)
    )


def _headline(recipe: Recipe, reports: Sequence[ParityReport], *, passed: bool) -> str:
    source = recipe.source_format.label
    if not reports:
        return f"Nothing was compared with {source}"
    if not passed:
        return "Nothing is published"
    rows = sum(probe.rows for probe in reports[0].probes)
    who = " and ".join(dict.fromkeys(each.candidate.label for each in reports))
    verb = "answer" if len(reports) > 1 else "answers"
    worst = share(max(each.budget for each in reports))
    waived = sum(len(each.waived) for each in reports)
    but = f", but for {waived} waived comparison{'s' * (waived > 1)}" if waived else ""
    return (
        f"{who} {verb} as {source} does{but}, on {rows} rows of {len(reports[0].probes)} probes; "
        f"the worst element uses {worst} of its limit"
    )


def _nodes(
    recipe: Recipe, reports: Sequence[ParityReport], release: Release | None
) -> tuple[Node, ...]:
    made = {each.verified.artifact.format: each for each in release.candidates} if release else {}
    lines = [size(release.source.artifact.tree.size_bytes)] if release else []
    lines += (
        [f"{name} {value:.3f}" for name, value in release.source.metrics.items()] if release else []
    )
    source = Node(0, recipe.source_format.label, tuple(lines[:2]), "source", "", "")
    rest = [
        _node(_PITCH * i, target, _last(reports, target), made.get(target))
        for i, target in enumerate(recipe.targets, start=1)
    ]
    return (source, *rest)


def _last(reports: Sequence[ParityReport], target: ModelFormat) -> ParityReport | None:
    return next((each for each in reversed(reports) if each.candidate is target), None)


def _node(
    x: int, target: ModelFormat, report: ParityReport | None, candidate: Candidate | None
) -> Node:
    if report is None:
        return Node(x, target.label, ("not reached",), "none", "", "not compared")
    lines = [" ".join(report.runtime.split()[:2])]
    if candidate:
        lines = [size(candidate.verified.artifact.tree.size_bytes)]
        if onnx := candidate.verified.onnx:
            lines.append(f"opset {max(onnx.opsets.values())}, {onnx.parameters:,} weights")
    if report.passed:
        what = f"{len(report.waived)} waived, else equal" if report.waived else "equal"
        verdict, says = "pass", f"{what}, worst {share(report.budget)} of tolerance"
    else:
        bad = sum(not probe.passed for probe in report.probes)
        verdict, says = "fail", f"differs in {bad} of {len(report.probes)} probes"
    by = candidate.converter if candidate else ""
    return Node(x, target.label, tuple(lines), verdict, by, says)


def _tables(reports: Sequence[ParityReport], titles: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "title": title,
            "open": not report.passed
            or sum(len(each.outputs) for each in report.probes) < _FEW_ROWS,
            "rows": [
                {
                    "cells": output_cells(probe, output),
                    "passed": output.passed,
                    "waived": output.waived is not None,
                    "reason": output.reason,
                }
                for probe in report.probes
                for output in probe.outputs
            ],
        }
        for title, report in zip(titles, reports, strict=True)
    ]


def _facts(recipe: Recipe, release: Release | None) -> list[tuple[str, str]]:
    real = recipe.parity.real.kind if recipe.parity.real else "none"
    facts = [
        ("Source", f"{recipe.source.kind}, {recipe.source_format.label}"),
        *(("Input", str(each)) for each in recipe.signature.plain.inputs),
        *(("Output", f"{each} ({role})") for each, role in _outputs(recipe)),
        ("Opset", str(recipe.opset)),
        ("Device", recipe.device),
        ("Random rows", f"{recipe.parity.random_rows}, seed {recipe.parity.seed}"),
        ("Real data", real),
        ("Licence", recipe.licence),
    ]
    if release:
        facts += [("Reference ran on", release.reference.runtime)]
        facts += [("Digest of the source", release.source.artifact.tree.sha256[:16])]
        facts += [("Note", note) for note in release.source.notes]
    return facts


def _outputs(recipe: Recipe) -> list[tuple[str, str]]:
    plain = recipe.signature.plain.outputs
    return [
        (str(bare), each.role) for bare, each in zip(plain, recipe.signature.outputs, strict=True)
    ]


def _tolerances(reports: Sequence[ParityReport]) -> list[tuple[str, str]]:
    found: dict[str, Tolerance] = {}
    for report in reports:
        for probe in report.probes:
            found |= {each.name: each.tolerance for each in probe.outputs if each.tolerance}
    return [
        (name, f"|c - r| ≤ {each.rtol:g}·|r| + {each.scale:g}·max|row| + {each.floor:g}")
        for name, each in found.items()
    ]


def _attempts(release: Release | None) -> list[dict[str, Any]]:
    if release is None:
        return []
    return [
        {
            "format": candidate.verified.artifact.format.label,
            "converter": attempt.converter,
            "succeeded": attempt.succeeded,
            "reason": "; ".join(filter(None, (attempt.reason, attempt.diagnosis))),
            "cost": seconds(attempt.cost.seconds) if attempt.cost.seconds else "",
        }
        for candidate in release.candidates
        for attempt in candidate.attempts
    ]


def _checks(release: Release | None) -> list[tuple[str, tuple[str, ...]]]:
    candidates = release.candidates if release else ()
    return [
        (
            each.verified.artifact.format.label,
            (*each.verified.checks, *each.notes, *map(str, each.skipped)),
        )
        for each in candidates
    ]


def _costs(release: Release | None) -> list[dict[str, Any]]:
    if release is None:
        return []
    stages: list[tuple[str, Cost]] = [
        ("acquire", release.source.cost),
        ("reference", release.reference.cost),
    ]
    for each in release.candidates:
        label = each.verified.artifact.format.label
        costs = (each.export_cost, each.verify_cost, each.parity_cost)
        stages += [
            (f"{stage} {label}", cost)
            for stage, cost in zip(("export", "verify", "parity"), costs, strict=True)
        ]
    slowest = max(cost.seconds for _, cost in stages) or 1
    largest = max(cost.peak_mb for _, cost in stages) or 1
    return [
        {
            "stage": stage,
            "seconds": seconds(cost.seconds),
            "time_share": round(100 * cost.seconds / slowest, 1),
            "memory": f"{cost.peak_mb:,.0f} MiB",
            "memory_share": round(100 * cost.peak_mb / largest, 1),
        }
        for stage, cost in stages
    ]
