"""What the report says beside the verdict: noise, worst rows, holes, task metrics, waivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.report.figures import figure, share
from tasks.report.histogram import HEIGHT, LEFT, TOP, WIDTH, histograms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.domain.parity import NoiseParity, NonFiniteMap, ParityReport, RowError

NOISE_COLUMNS = (
    "probe", "output", "rows", "source's error", "its error", "ratio",
    "source's RMS", "its RMS", "ratio of RMS",
)  # fmt: skip
WAIVER_COLUMNS = ("format", "what fails", "waived because", "owner", "until")
METRIC_COLUMNS = ("format", "probe", "output", "metric", "rows", "source", "candidate", "budget")
_WORST_ROWS = 5
_LARGE = 100


def closeness(reports: Sequence[ParityReport], titles: Sequence[str]) -> dict[str, Any]:
    """Return everything that ``closeness.html`` names."""
    pairs = list(zip(titles, reports, strict=True))
    return {
        "waived": list(waiver_cells(reports, titles)),
        "waiver_columns": WAIVER_COLUMNS,
        "notes": [(title, note) for title, each in pairs for note in each.notes],
        "noise": [
            {"title": title, "words": each.noise, "rows": list(noise_cells(each))}
            for title, each in pairs
            if each.noise
        ],
        "noise_columns": NOISE_COLUMNS,
        "histograms": histograms(reports, titles),
        "frame": {"left": LEFT, "top": TOP, "width": WIDTH, "height": HEIGHT},
        "worst": [(title, rows) for title, each in pairs if (rows := list(_worst(each)))],
        "holes": [(title, line) for title, each in pairs for line in hole_lines(each)],
        "metrics": list(metric_cells(reports, titles)),
        "metric_columns": METRIC_COLUMNS,
    }


def noise_cells(report: ParityReport) -> Iterator[list[str]]:
    """Yield the cells of each output of each probe that float64 answered."""
    for probe in report.probes:
        for output in probe.outputs:
            if output.noise:
                yield [probe.probe, output.name, *_noise(output.noise)]


def _noise(noise: NoiseParity) -> list[str]:
    left = f" ({noise.left_out} left out)" if noise.left_out else ""
    return [
        f"{noise.rows}{left}",
        figure(noise.own_max),
        figure(noise.error_max),
        _ratio(noise.ratio_max, noise.bound_max),
        figure(noise.own_rms),
        figure(noise.error_rms),
        _ratio(noise.ratio_rms, noise.bound_rms),
    ]


def _ratio(ratio: float, bound: float | None) -> str:
    written = f"{ratio:,.0f}" if ratio >= _LARGE else f"{ratio:.2f}"
    return f"{written} (no bound)" if bound is None else f"{written} of {bound:g}"


def waiver_cells(reports: Sequence[ParityReport], titles: Sequence[str]) -> Iterator[list[str]]:
    """Yield the cells of everything that fails and is waived."""
    for title, report in zip(titles, reports, strict=True):
        for what, waived in report.waived:
            yield [title, what, waived.reason, waived.owner, waived.expires.isoformat()]


def metric_cells(reports: Sequence[ParityReport], titles: Sequence[str]) -> Iterator[list[str]]:
    """Yield the cells of every task metric."""
    for title, report in zip(titles, reports, strict=True):
        for each in report.metrics:
            figures = (each.source, each.candidate, each.budget)
            yield [
                title,
                each.probe,
                each.output,
                each.name,
                str(each.rows),
                *(f"{value:.4f}" for value in figures),
            ]


def hole_lines(report: ParityReport) -> Iterator[str]:
    """Say of each output where it is NaN or infinite."""
    for probe in report.probes:
        for output in probe.outputs:
            if output.non_finite:
                yield f"{probe.probe}/{output.name}: {_holes(output.non_finite)}"


def _holes(holes: NonFiniteMap) -> str:
    sides = [
        f"{side} {nan:,} NaN and {infinite:,} infinite"
        for side, nan, infinite in (
            ("the source has", holes.reference_nan, holes.reference_infinite),
            ("the candidate has", holes.candidate_nan, holes.candidate_infinite),
        )
    ]
    rows = _places("row", holes.row_count, holes.rows)
    elements = _places("element", holes.element_count, holes.elements)
    return f"{', '.join(sides)}; in {rows}, at {elements}"


def _places(name: str, count: int, first: Sequence[int]) -> str:
    listed = ", ".join(map(str, first))
    more = " …" if count > len(first) else ""
    return f"{count:,} {name}{'s' * (count != 1)} ({listed}{more})"


def _worst(report: ParityReport) -> Iterator[tuple[str, ...]]:
    """Yield the cells of the rows of each output that use most of their tolerance."""
    found: dict[str, list[tuple[str, RowError]]] = {}
    for probe in report.probes:
        for output in probe.outputs:
            found.setdefault(output.name, []).extend(
                (probe.probe, each) for each in output.worst_rows
            )
    for name, rows in found.items():
        for probe_name, row in sorted(rows, key=lambda each: -each[1].budget)[:_WORST_ROWS]:
            figures = (figure(row.max_abs), figure(row.rmse), share(row.budget))
            yield (name, probe_name, str(row.row), *figures)
