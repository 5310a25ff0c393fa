"""How a release compares with the one before it: errors, best classes, size and speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.domain.parity import OutputParity, ParityReport
    from tasks.domain.release import Candidate, Manifest, PublishedFormat, Release

GOLDEN = "golden"
"""The probe of rows that an earlier release was proven on."""

TEN_TIMES = 10.0
"""A larger error than this many times the last one's is flagged, though it passes."""
_NOTHING = 0.01
"""Errors below this share of the tolerance are never flagged: ten times nothing is nothing."""
_SIZE_TIMES = 2.0
_LATENCY_TIMES = 3.0
"""Larger or slower than this many times is flagged; a busy machine alone can double a time."""
_SAME_HOST = ("processor", "cpu", "cores", "memory_mb", "gpus")


class SourceDrift(Value):
    """How far the source's own answers to the last release's golden rows have moved."""

    output: str
    rows: NonNegativeInt
    max_abs: NonNegativeFloat | None = None
    """None for text and labels, and where the shape is another one."""
    changed: NonNegativeInt
    """Rows whose best class, label or text is another one; for other numbers, rows that moved."""


class Replay(Value):
    """The golden samples of the last release, answered again."""

    version: PositiveInt
    rows: NonNegativeInt
    """Rows of the last release that were answered again."""
    source: tuple[SourceDrift, ...] = ()
    notes: tuple[str, ...] = ()
    """What was not replayed, and why."""

    def summary(self) -> str:
        """Say it in one line."""
        moved = [each for each in self.source if each.changed]
        said = [
            f"the source answers {each.changed} of {each.rows} rows otherwise in '{each.output}'"
            for each in moved
        ]
        alike = ["the source answers as it did"] if self.source and not moved else []
        words = "; ".join((*said, *alike, *self.notes))
        return f"{self.rows} golden rows of version {self.version} replayed: {words or 'no more'}"


class ErrorDrift(Value):
    """The largest error of one output, now and in the last release, on the rows of both."""

    output: str
    max_abs: NonNegativeFloat
    last_max_abs: NonNegativeFloat
    flagged: bool


class Drift(Value):
    """How a candidate compares with the last release's model of its format."""

    since: PositiveInt
    """The version that it is compared with."""
    errors: tuple[ErrorDrift, ...] = ()
    top1_missed: NonNegativeInt = 0
    """Rows whose best class is not the source's, on the probes of both."""
    last_top1_missed: NonNegativeInt = 0
    size_bytes: NonNegativeInt
    last_size_bytes: NonNegativeInt
    ms_per_row: NonNegativeFloat | None = None
    last_ms_per_row: NonNegativeFloat | None = None
    """Both absent where they do not compare; ``latency`` says why."""
    latency: str = ""
    """Why the times were not compared; empty where they were."""
    flags: tuple[str, ...] = ()
    """What is worth a look, in words; none of it fails the release."""

    def lines(self) -> tuple[str, ...]:
        """Say it in words, one line for each thing compared."""
        errors = [
            f"{each.output}: largest error {each.max_abs:.3g}, was {each.last_max_abs:.3g}"
            for each in self.errors
        ]
        times = self.latency
        if self.ms_per_row is not None and self.last_ms_per_row is not None:
            times = f"{self.ms_per_row:.3g} ms a row, was {self.last_ms_per_row:.3g}"
        return (
            *(errors or ("no probe of both releases",)),
            f"best class missed in {self.top1_missed} rows, was {self.last_top1_missed}",
            f"{self.size_bytes:,} bytes, was {self.last_size_bytes:,}",
            f"latency: {times}",
        )


def with_drift(release: Release, last: Manifest | None, host: Mapping[str, str]) -> Release:
    """Return the release with each candidate compared with the last release's of its format."""
    formats = {each.format: each for each in last.formats} if last else {}
    if last is None:
        return release
    candidates = [
        each.model_copy(update={"drift": drift_of(each, formats[made], last, host)})
        if (made := each.verified.artifact.format) in formats
        else each
        for each in release.candidates
    ]
    return release.model_copy(update={"candidates": tuple(candidates)})


def drift_of(
    candidate: Candidate, before: PublishedFormat, last: Manifest, host: Mapping[str, str]
) -> Drift:
    """Compare a candidate with the same format of the last release."""
    errors = tuple(_errors(candidate.parity, before.parity))
    missed, last_missed = (
        _missed(one, other)
        for one, other in (
            (candidate.parity, before.parity),
            (before.parity, candidate.parity),
        )
    )
    size = candidate.verified.artifact.tree.size_bytes
    why = _why_no_latency(candidate, before, last, host)
    drift = Drift(
        since=last.version,
        errors=errors,
        top1_missed=missed,
        last_top1_missed=last_missed,
        size_bytes=size,
        last_size_bytes=before.size_bytes,
        ms_per_row=None if why else candidate.ms_per_row,
        last_ms_per_row=None if why else before.ms_per_row,
        latency=why,
    )
    return drift.model_copy(update={"flags": tuple(_flags(drift))})


def _flags(drift: Drift) -> Iterator[str]:
    for each in drift.errors:
        if each.flagged:
            yield (
                f"{each.output}: its largest error is {each.max_abs:.3g}, at least "
                f"{TEN_TIMES:g} times version {drift.since}'s ({each.last_max_abs:.3g})"
            )
    if drift.top1_missed > drift.last_top1_missed:
        yield (
            f"the best class is missed in {drift.top1_missed} rows (in version {drift.since}: "
            f"{drift.last_top1_missed})"
        )
    if drift.size_bytes >= _SIZE_TIMES * drift.last_size_bytes:
        yield f"{drift.size_bytes:,} bytes, at least {_SIZE_TIMES:g} times version {drift.since}'s"
    now, then = drift.ms_per_row, drift.last_ms_per_row
    if now is not None and then and now >= _LATENCY_TIMES * then:
        yield f"{now:.3g} ms a row, at least {_LATENCY_TIMES:g} times version {drift.since}'s"


def _outputs(report: ParityReport, other: ParityReport) -> dict[str, list[OutputParity]]:
    """Return each output's comparisons on the probes that both reports have, and on golden ones."""
    sizes = {each.probe: each.rows for each in other.probes}
    found: dict[str, list[OutputParity]] = {}
    for probe in report.probes:
        if sizes.get(probe.probe) == probe.rows or probe.probe == GOLDEN:
            for each in probe.outputs:
                found.setdefault(each.name, []).append(each)
    return found


def _errors(report: ParityReport, before: ParityReport) -> Iterator[ErrorDrift]:
    then = _outputs(before, report)
    for name, outputs in _outputs(report, before).items():
        now, last = (
            [each.errors for each in some if each.errors] for some in (outputs, then.get(name, []))
        )
        if now and last:
            largest, was = (max(each.max_abs for each in some) for some in (now, last))
            matters = max(each.budget for each in now) >= _NOTHING
            yield ErrorDrift(
                output=name,
                max_abs=largest,
                last_max_abs=was,
                flagged=matters and largest >= TEN_TIMES * was,
            )


def _missed(report: ParityReport, other: ParityReport) -> int:
    return sum(
        each.ranks.rows - each.ranks.top1_equal
        for some in _outputs(report, other).values()
        for each in some
        if each.ranks
    )


def _why_no_latency(
    candidate: Candidate, before: PublishedFormat, last: Manifest, host: Mapping[str, str]
) -> str:
    if candidate.ms_per_row is None or before.ms_per_row is None:
        return "not compared: not measured"
    if any(host.get(each) != last.host.get(each) for each in _SAME_HOST):
        return "not compared: other host"
    return ""
