"""Waivers: what may fail for a while, why, by whose word, and until when.

A waiver is in the recipe, so it is reviewed as code is. What it covers is told as waived in the
report and the manifest, never as passed. It never covers what no number can excuse: NaN or
infinity on one side, an output that is missing, another shape or dtype.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field

from tasks.domain.artifact import ModelFormat
from tasks.domain.parity import OutputParity, ParityReport, ProbeParity, TaskMetric, Waived
from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

Waivable: TypeAlias = Literal["numbers", "ranks", "labels", "task-metric"]


class Waiver(Value):
    """A comparison that may fail until a day; what is not said covers all."""

    output: str | None = None
    probe: str | None = None
    kinds: Annotated[tuple[Waivable, ...], Field(min_length=1)]
    """``numbers``: elements beyond the tolerance or the noise floor; ``ranks``: top-1 and top-5;
    ``labels``: what must be equal; ``task-metric``: accuracy on held-out rows."""
    format: ModelFormat | None = None
    variant: str | None = None
    """A variant of the format, such as ``float16``."""
    reason: Annotated[str, Field(min_length=10)]
    """Why it is right to go on; people will read it on the release's page."""
    owner: Annotated[str, Field(min_length=1)]
    """Who answers for it."""
    expires: date
    """The last day on which it holds, in UTC."""

    @property
    def covers(self) -> str:
        """What it covers, in words."""
        place = f"{self.probe or 'every probe'}/{self.output or 'every output'}"
        where = " ".join(filter(None, (self.format, self.variant)))
        return f"{', '.join(self.kinds)} of {place}{f' in {where}' if where else ''}"


class Place(NamedTuple):
    """What kind of candidate a report is about."""

    format: ModelFormat
    variant: str = ""


def today_in_utc() -> date:
    """Return the day by which waivers expire."""
    return datetime.now(UTC).date()


def expired(waivers: Sequence[Waiver], today: date) -> list[tuple[int, str]]:
    """Return the position of each waiver that holds no longer, and what is wrong with it."""
    return [(i, _expiry(each, today)) for i, each in enumerate(waivers) if each.expires < today]


def _expiry(waiver: Waiver, today: date) -> str:
    return (
        f"the waiver of {waiver.covers} expired (its last day was {waiver.expires}, today is "
        f"{today}; owner: {waiver.owner}). Mend the model and remove the waiver, or let its owner "
        "renew it."
    )


def apply_waivers(
    report: ParityReport, waivers: Sequence[Waiver], today: date, variant: str = ""
) -> ParityReport:
    """Mark what fails and is waived, and note the waivers that nothing needs.

    An output is waived where waivers that hold cover every kind of fault in it.

    Args:
        report: As it was compared.
        waivers: The recipe's.
        today: The day by which they expire.
        variant: The candidate's variant, such as ``float16``; empty for none.
    """
    place = Place(report.candidate, variant)
    holding = [
        each
        for each in waivers
        if each.expires >= today
        and each.format in (None, place.format)
        and (each.variant or "") in ("", variant)
    ]
    used: set[int] = set()
    probes = tuple(_probe(probe, holding, used) for probe in report.probes)
    metrics = tuple(_metric(each, holding, used) for each in report.metrics)
    unused = tuple(
        f"the waiver of {each.covers} (owner: {each.owner}, until {each.expires}) "
        "is no longer needed: remove it"
        for i, each in enumerate(holding)
        if i not in used
    )
    update = {"probes": probes, "metrics": metrics, "notes": (*report.notes, *unused)}
    return report.model_copy(update=update)


def _probe(probe: ProbeParity, waivers: Sequence[Waiver], used: set[int]) -> ProbeParity:
    outputs = tuple(_output(each, probe.probe, waivers, used) for each in probe.outputs)
    return probe.model_copy(update={"outputs": outputs})


def _output(
    output: OutputParity, probe: str, waivers: Sequence[Waiver], used: set[int]
) -> OutputParity:
    if output.passed or not output.faults:
        return output
    waived = _cover(output.faults, output.name, probe, waivers, used)
    return output.model_copy(update={"waived": waived}) if waived else output


def _metric(metric: TaskMetric, waivers: Sequence[Waiver], used: set[int]) -> TaskMetric:
    if metric.passed:
        return metric
    waived = _cover(("task-metric",), metric.output, metric.probe, waivers, used)
    return metric.model_copy(update={"waived": waived}) if waived else metric


def _cover(
    faults: Sequence[str], output: str, probe: str, waivers: Sequence[Waiver], used: set[int]
) -> Waived | None:
    """Return who waives all of these faults; None where one of them is not waived."""
    found: list[int] = []
    for fault in faults:
        fitting = [
            i
            for i, each in enumerate(waivers)
            if fault in each.kinds and each.output in (None, output) and each.probe in (None, probe)
        ]
        if not fitting:
            return None
        found.append(fitting[0])
    used |= set(found)
    chosen = [waivers[i] for i in dict.fromkeys(found)]
    return Waived(
        reason="; ".join(each.reason for each in chosen),
        owner=", ".join(dict.fromkeys(each.owner for each in chosen)),
        expires=min(each.expires for each in chosen),
    )
