"""How large the errors are, decade by decade: where the columns of the picture stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.domain.parity import DECADES
from tasks.report.chart import output_names
from tasks.report.figures import share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.domain.parity import ParityReport

LEFT, TOP, WIDTH, HEIGHT = 46.0, 16.0, 704.0, 120.0
_LABELS = ("none", "below", *(f"1e{power}" for power in range(-9, 0)), "1 up")
_LEAST = 0.004
"""A column that stands for anything is at least this part of the height."""


@dataclass(frozen=True)
class Column:
    """The share of the elements whose error is of one decade, for one candidate."""

    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


@dataclass(frozen=True)
class Histogram:
    """The columns of one output, all probes together."""

    output: str
    columns: tuple[Column, ...]
    labels: tuple[tuple[float, str], ...]
    ulp: float
    """Where the distance between two float32 numbers stands."""
    about: str
    """The picture in one sentence, for those who do not see it."""


def histograms(reports: Sequence[ParityReport], titles: Sequence[str]) -> tuple[Histogram, ...]:
    """Return one histogram for each output that has numbers.

    Args:
        reports: Each is a series of columns.
        titles: Their names, in the same order.
    """
    names = output_names(reports, lambda each: bool(each.errors and each.errors.histogram))
    return tuple(_histogram(name, reports, titles) for name in names)


def _histogram(name: str, reports: Sequence[ParityReport], titles: Sequence[str]) -> Histogram:
    counts = [_counts(name, report) for report in reports]
    pitch = WIDTH / len(_LABELS)
    most = max(range(len(_LABELS)), key=lambda place: sum(each[place] for each in counts))
    return Histogram(
        output=name,
        columns=tuple(
            column
            for series, bins in enumerate(counts)
            for column in _columns(series, len(counts), bins, titles[series])
        ),
        labels=tuple(
            (round(LEFT + pitch * (place + 0.5), 1), label) for place, label in enumerate(_LABELS)
        ),
        # 1.2e-7 lies a twelfth of a decade into the one that begins at 1e-7
        ulp=round(LEFT + pitch * (2 + 2 + 0.08), 1),
        about=f"Errors of '{name}' by size; most have {_said(most)}.",
    )


def _columns(series: int, many: int, bins: Sequence[int], title: str) -> Iterator[Column]:
    pitch, total = WIDTH / len(_LABELS), max(1, sum(bins))
    width = (pitch - 8) / many
    for place, count in enumerate(bins):
        if not count:
            continue
        height = HEIGHT * max(count / total, _LEAST)
        yield Column(
            x=round(LEFT + pitch * place + 4 + width * series, 1),
            y=round(TOP + HEIGHT - height, 1),
            width=round(width - 1, 1),
            height=round(height, 1),
            series=series,
            title=f"{title}, {_said(place)}: {count:,} elements, {share(count / total)}",
        )


def _counts(name: str, report: ParityReport) -> list[int]:
    bins = [0] * len(_LABELS)
    for probe in report.probes:
        for output in probe.outputs:
            if output.name == name and output.errors and output.errors.histogram:
                bins = [a + b for a, b in zip(bins, output.errors.histogram, strict=True)]
    return bins


def _said(place: int) -> str:
    if place == 0:
        return "no error"
    if place == 1:
        return f"an error below {DECADES[0]:g} of the row's largest"
    if place == len(_LABELS) - 1:
        return "an error of the row's largest or more"
    low, high = DECADES[place - 2], DECADES[place - 1]
    return f"an error of {low:g} to {high:g} of the row's largest"
