"""Where the lines of the page's pictures lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.report.figures import share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.domain.parity import OutputParity, ParityReport

LEFT, WIDTH, TOTAL = 132.0, 520.0, 760.0
_TOP = 26.0
_BAR = 12.0
_GAP = 10.0
_LOWEST = -5
_HIGHEST = 6
_FEW_TICKS = 8


@dataclass(frozen=True)
class Bar:
    """The share of its tolerance that one output of one probe uses, for one candidate."""

    y: float
    width: float
    text: str
    series: int
    """Which candidate, from 0."""
    passed: bool
    title: str


@dataclass(frozen=True)
class Chart:
    """The bars of one output, on a logarithmic scale with the limit at 1."""

    output: str
    height: float
    bars: tuple[Bar, ...]
    probes: tuple[tuple[float, str], ...]
    """Where each probe's name stands, and the name."""
    ticks: tuple[tuple[float, str], ...]
    limit: float
    about: str
    """The picture in one sentence, for those who do not see it."""


def output_names(
    reports: Sequence[ParityReport], wanted: Callable[[OutputParity], bool]
) -> tuple[str, ...]:
    """Return the names of the outputs of which any comparison is wanted, in order, once each."""
    found = (each for report in reports for probe in report.probes for each in probe.outputs)
    return tuple(dict.fromkeys(each.name for each in found if wanted(each)))


def charts(reports: Sequence[ParityReport], titles: Sequence[str]) -> tuple[Chart, ...]:
    """Return one chart for each output that has numbers.

    Args:
        reports: Each is a series of bars.
        titles: Their names, in the same order.
    """
    names = output_names(reports, lambda each: bool(each.errors or each.non_finite_mismatched))
    high = _highest_power(reports)
    return tuple(_chart(name, reports, titles, high) for name in names)


def _highest_power(reports: Sequence[ParityReport]) -> int:
    """Return the power of ten where the scale ends, the same for all charts of a page."""
    worst = max((each.budget for each in reports if each.budget < math.inf), default=1.0)
    return min(_HIGHEST, max(1, math.ceil(math.log10(max(worst, 1.0)))))


def _chart(name: str, reports: Sequence[ParityReport], titles: Sequence[str], high: int) -> Chart:
    found: dict[str, list[tuple[int, OutputParity]]] = {}
    for series, report in enumerate(reports):
        for probe in report.probes:
            for output in probe.outputs:
                if output.name == name:
                    found.setdefault(probe.probe, []).append((series, output))
    budgets = [_budget(output) for each in found.values() for _, output in each]
    bars, probes, y = [], [], _TOP
    for probe_name, outputs in found.items():
        probes.append((y + _BAR * len(outputs) / 2, probe_name))
        for series, output in outputs:
            bars.append(_bar(y, high, series, output, f"{titles[series]}, {probe_name}"))
            y += _BAR
        y += _GAP
    worst = max(budgets, default=0.0)
    return Chart(
        output=name,
        height=y + 4,
        bars=tuple(bars),
        probes=tuple(probes),
        ticks=_ticks(high),
        limit=_x(1.0, high),
        about=f"Share of the tolerance that '{name}' uses, by probe; at worst {share(worst)}.",
    )


def _bar(y: float, high: int, series: int, output: OutputParity, title: str) -> Bar:
    budget = _budget(output)
    text = share(budget)
    if output.non_finite_mismatched:
        text = "NaN or ∞"
    elif not output.passed and budget <= 1:
        text = f"{text}, fails otherwise"
    return Bar(
        y=y,
        width=max(2.0, _x(budget, high) - LEFT),
        text=text,
        series=series,
        passed=output.passed,
        title=f"{title}: {text}{' of the tolerance' if budget <= 1 else ''}. {output.reason}",
    )


def _budget(output: OutputParity) -> float:
    if output.non_finite_mismatched or output.errors is None:
        return 0.0 if output.passed else math.inf
    return output.errors.budget


def _x(budget: float, high: int) -> float:
    power = math.log10(budget) if 0 < budget < math.inf else math.inf * (1 if budget else -1)
    part = (min(max(power, _LOWEST), high) - _LOWEST) / (high - _LOWEST)
    return round(LEFT + WIDTH * part, 1)


def _ticks(high: int) -> tuple[tuple[float, str], ...]:
    step = 1 if high - _LOWEST < _FEW_TICKS else 2
    powers = sorted({*range(0, _LOWEST - 1, -step), *range(0, high + 1, step)})
    return tuple((_x(10.0**power, high), _tick(power)) for power in powers)


def _tick(power: int) -> str:
    if power > 0:
        return f"{10**power:,}x"
    return "100 % = limit" if power == 0 else f"{100 * 10.0**power:g} %"
