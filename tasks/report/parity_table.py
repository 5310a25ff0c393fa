"""The parity table, as Prefect shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.report.closeness import (
    METRIC_COLUMNS,
    NOISE_COLUMNS,
    WAIVER_COLUMNS,
    hole_lines,
    metric_cells,
    noise_cells,
    waiver_cells,
)
from tasks.report.figures import cosine, figure, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.domain.parity import OutputParity, ParityReport, ProbeParity
    from tasks.domain.recipe import Recipe

_COLUMNS = (
    "format", "probe", "rows", "output", "verdict", "max abs", "max rel", "p99.9", "cosine",
    "of tolerance", "top-1", "top-5", "ties",
)  # fmt: skip
_WAYS = ("runtime", "optimisation", "device", "verdict", "of tolerance", "in words")


def parity_markdown(recipe: Recipe, reports: Sequence[ParityReport]) -> str:
    """Render every comparison as one compact table, its verdict and its reasons above it."""
    lines = [f"## Parity of {recipe.name} with {recipe.source_format.label}", ""]
    if recipe.seeded:
        lines += ["> **RANDOM WEIGHTS**: this proves a graph, and is of no other use.", ""]
    for report in reports:
        if report.passed:
            lines.append(f"- {'⚠️' if report.waived else '✅'} {plain(report.summary())}")
        else:
            lines.append(f"- ❌ {report.candidate.label} differs")
            lines += [f"  - {plain(reason)}" for reason in report.reasons()]
    lines += _table(_COLUMNS, [cells for report in reports for cells in _cells(report)])
    lines += _closeness(reports)
    if any(each.matrix.cells for each in reports):
        lines += _table(_WAYS, [cells for report in reports for cells in _way_cells(report)])
    return "\n".join([*lines, ""])


def _closeness(reports: Sequence[ParityReport]) -> list[str]:
    """Render what is waived, the noise floor, the task metrics and where NaN is."""
    labels = [each.candidate.label for each in reports]
    lines = []
    if waived := list(waiver_cells(reports, labels)):
        lines += ["", "### Waived", *_table(WAIVER_COLUMNS, waived)]
    told = [(label, each) for label, one in zip(labels, reports, strict=True) for each in one.notes]
    lines += ["", *(f"- {label}: {plain(note)}" for label, note in told)] if told else []
    for label, report in zip(labels, reports, strict=True):
        if report.noise:
            lines += ["", f"### Noise floor of {label}", "", plain(report.noise)]
        if cells := list(noise_cells(report)):
            lines += _table(NOISE_COLUMNS, cells)
        if holes := list(hole_lines(report)):
            lines += ["", *(f"- {plain(line)}" for line in holes)]
    if metrics := list(metric_cells(reports, labels)):
        lines += ["", "### Where the true answers are known", *_table(METRIC_COLUMNS, metrics)]
    return lines


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["", _row(columns), _row(["---"] * len(columns)), *map(_row, rows)]


def _way_cells(report: ParityReport) -> Iterator[list[str]]:
    verdicts = {None: "", True: "pass", False: "FAIL"}
    for each in report.matrix.cells:
        used = "" if each.budget is None else share(each.budget)
        yield [each.runtime, each.level, each.provider, verdicts[each.passed], used, each.words]


def _cells(report: ParityReport) -> Iterator[list[str]]:
    for probe in report.probes:
        for output in probe.outputs:
            yield [report.candidate.label, *output_cells(probe, output)]


def output_cells(probe: ProbeParity, output: OutputParity) -> list[str]:
    """Return the cells of one output, from the probe's name to the number of ties."""
    errors, ranks = output.errors, output.ranks
    figures = ["equal" if output.passed else f"{output.mismatched:,} differ", *[""] * 4]
    if errors:
        figures = [figure(errors.max_abs), figure(errors.max_rel), figure(errors.p999_abs)]
        figures += [cosine(errors.cosine), share(errors.budget)]
    ranked = (
        [f"{ranks.top1_equal}/{ranks.rows}", f"{ranks.top5_equal}/{ranks.rows}"]
        if ranks
        else ["", ""]
    )
    ties = (ranks.ties_swapped if ranks else 0) + output.label_ties
    verdict = "pass" if output.passed else "WAIVED" if output.waived else "FAIL"
    if output.non_finite_agreed:
        verdict += f" ({output.non_finite_agreed:,} NaN or ∞ alike)"
    return [probe.probe, str(probe.rows), output.name, verdict, *figures, *ranked, str(ties or "")]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(plain, cells))} |"


def plain(text: str) -> str:
    """Make text safe for a table's cell and for a list's line."""
    for mark in "\\`*_|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
