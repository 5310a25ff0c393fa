"""The rules of parity: when a candidate's answers count as the reference's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from tasks.domain.labels import Scores, compare_labels
from tasks.domain.noise import Held, OwnNoise, Truth, compare_noise, lost_rows, own_noise
from tasks.domain.non_finite import map_non_finite
from tasks.domain.parity import (
    ErrorSpread,
    FaultKind,
    HeldTo,
    NoiseParity,
    NonFiniteMap,
    OutputParity,
    ProbeParity,
    RankAgreement,
    RowError,
)
from tasks.domain.profiles import NOISE_DECIDES, tolerance_for
from tasks.domain.ranking import compare_ranks
from tasks.domain.spread import measure
from tasks.domain.wording import noise_problems, number_problems, rank_problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tasks.domain.parity import ProfileName, Tolerance
    from tasks.domain.signature import OutputSpec

    Array = NDArray[np.generic]
    Answers = Mapping[str, Array]

Problem: TypeAlias = "tuple[FaultKind, str]"
"""What kind of fault it is, and the fault in words."""

_RANKED = ("logits", "probabilities")


class _Finding(NamedTuple):
    """What comparing the elements of one output found; ``problems`` are in words."""

    problems: tuple[Problem, ...] = ()
    mismatched: int = 0
    non_finite_mismatched: int = 0
    non_finite_agreed: int = 0
    label_ties: int = 0
    errors: ErrorSpread | None = None
    ranks: RankAgreement | None = None
    noise: NoiseParity | None = None
    non_finite: NonFiniteMap | None = None
    worst_rows: tuple[RowError, ...] = ()


class Limits(NamedTuple):
    """What one output of one probe is held to."""

    tolerance: Tolerance
    """How far each element may stray from the reference's float32."""
    own: OwnNoise | None = None
    """The reference's own noise, where it answered in float64."""
    gated: bool = False
    """Whether the noise decides."""
    tie: Tolerance | None = None
    """How close scores tie; absent: as ``tolerance``."""
    unjudged: tuple[int, ...] = ()
    """Rows in which the reference's numbers say nothing."""


def compare_probe(
    probe: str,
    outputs: Sequence[OutputSpec],
    reference: Answers,
    candidate: Answers,
    profile: ProfileName,
    truth: Truth | Held | None = None,
) -> ProbeParity:
    """Compare the answers to one probe, output by output.

    Where the reference answered in float64 too, the noise floor decides for the numbers of those
    rows: ``tasks.domain.noise``. The profile's tolerance is then widened, if need be, so that
    what keeps within the noise keeps within it.

    An output that the recipe declares and one side lacks fails, as does one that the candidate
    adds. Rows are those of the reference's answers.

    Args:
        probe: The probe's name.
        outputs: What the recipe declares.
        reference: The source framework's answers, by output name, first axis the rows.
        candidate: The candidate's.
        profile: How far numbers may stray.
        truth: The source's answers in float64, where it gave any, or what a release was held to
            when there were some.
    """
    compared = []
    for spec in outputs:
        if spec.name not in reference or spec.name not in candidate:
            compared.append(_missing(spec, reference))
            continue
        limits = _limits(spec, reference, profile, probe, truth)
        scores = find_scores(outputs, reference, profile, truth)
        compared.append(
            compare_output(spec, reference[spec.name], candidate[spec.name], limits, scores)
        )
    declared = {spec.name for spec in outputs}
    extra = [_extra(name, candidate[name]) for name in candidate if name not in declared]
    rows = max((len(each) for each in reference.values() if each.ndim), default=0)
    return ProbeParity(probe=probe, rows=rows, outputs=(*compared, *extra))


def compare_output(
    spec: OutputSpec,
    reference: Array,
    candidate: Array,
    limits: Tolerance | Limits,
    scores: Scores | None = None,
) -> OutputParity:
    """Compare one output.

    Shape and dtype come first, then whatever is NaN or infinite, then the numbers (all in
    float64), then the order of the best classes. Strings, booleans, integers and labels must be
    equal. Another shape, no rows and no elements fail with every element counted as mismatched.

    Args:
        spec: What the recipe declares; its role says what else is compared.
        reference: The source framework's answer, first axis the rows.
        candidate: The candidate's.
        limits: How far each element may stray, and what the reference's own noise is.
        scores: By which differing labels may prove to be ties.
    """
    held = limits if isinstance(limits, Limits) else Limits(limits)
    problems = [*_shape_problems(spec, reference, candidate), *_dtype_problems(spec, candidate)]
    comparable = reference.shape == candidate.shape and reference.size > 0
    finding = _Finding(mismatched=max(reference.size, candidate.size))
    if comparable and _is_text(reference) != _is_text(candidate):
        problems.append(("dtype", f"text cannot be compared with numbers ({_name(candidate)})"))
    elif comparable:
        finding = _compare_elements(spec, reference, candidate, held, scores)
    found = (*problems, *finding.problems)
    reason = "; ".join(words for _, words in found)
    return OutputParity(
        name=spec.name,
        passed=not reason,
        reason=reason,
        shape=candidate.shape,
        expected_shape=reference.shape,
        dtype=_name(candidate),
        expected_dtype=spec.dtype,
        total=max(reference.size, candidate.size),
        tolerance=None if _is_exact(spec, reference, candidate) else held.tolerance,
        mismatched=finding.mismatched,
        non_finite_mismatched=finding.non_finite_mismatched,
        non_finite_agreed=finding.non_finite_agreed,
        label_ties=finding.label_ties,
        errors=finding.errors,
        ranks=finding.ranks,
        noise=finding.noise,
        unjudged=held.unjudged,
        faults=tuple(dict.fromkeys(kind for kind, _ in found)),
        non_finite=finding.non_finite,
        worst_rows=finding.worst_rows,
    )


def find_scores(
    outputs: Sequence[OutputSpec],
    reference: Answers,
    profile: ProfileName,
    truth: Truth | Held | None = None,
) -> Scores | None:
    """Return the first output that scores classes, if any does."""
    for spec in outputs:
        values = reference.get(spec.name)
        if spec.role in _RANKED and values is not None and _is_table(values):
            limits = _limits(spec, reference, profile, "", truth)
            return Scores(values, limits.tie or limits.tolerance)
    return None


def discriminating_outputs(
    outputs: Sequence[OutputSpec],
    reference: Answers,
    profile: ProfileName,
    truth: Truth | Held | None = None,
) -> frozenset[str]:
    """Return the outputs by which a model that answers other rows would be noticed.

    The reference's own answers, moved by one row, stand for such a wrong model: where the
    comparison passes them, it proves nothing.
    """
    moved = {name: np.roll(each, 1, axis=0) for name, each in reference.items() if each.ndim}
    result = compare_probe("moved", outputs, reference, moved, profile, truth)
    noticed = {each.name for each in result.outputs if each.mismatched}
    return frozenset(noticed & {spec.name for spec in outputs} & moved.keys())


def _limits(
    spec: OutputSpec,
    reference: Answers,
    profile: ProfileName,
    probe: str,
    truth: Truth | Held | None,
) -> Limits:
    tolerance = tolerance_for(profile, spec, probe)
    if isinstance(truth, Held):
        held = truth.outputs.get(spec.name, HeldTo(tolerance=tolerance))
        return Limits(held.tolerance, unjudged=held.unjudged)
    own = own_noise(truth, spec.name, reference[spec.name])
    lost = lost_rows(truth, spec.name, reference[spec.name])
    if own is None or not own.gates or profile not in NOISE_DECIDES:
        return Limits(tolerance, own, unjudged=lost)
    limit = own.widened(tolerance)
    whole = len(own.rows) == len(reference[spec.name])
    # scores of rows that float64 did not answer may be noisier than of those that it did
    tie = own.widened(tolerance.model_copy(update={"rtol": 0.0, "scale": 0.0})) if whole else None
    return Limits(limit, own, gated=True, tie=tie, unjudged=lost)


def _missing(spec: OutputSpec, reference: Answers) -> OutputParity:
    side = "candidate" if spec.name in reference else "reference"
    shape = reference[spec.name].shape if spec.name in reference else ()
    total = reference[spec.name].size if spec.name in reference else 0
    return OutputParity(
        name=spec.name,
        passed=False,
        reason=f"the {side} did not return it",
        shape=(),
        expected_shape=shape,
        dtype="",
        expected_dtype=spec.dtype,
        total=total,
        mismatched=total,
        faults=("missing",),
    )


def _extra(name: str, candidate: Array) -> OutputParity:
    return OutputParity(
        name=name,
        passed=False,
        reason="the candidate returned it, but the recipe declares no such output",
        shape=candidate.shape,
        expected_shape=(),
        dtype=_name(candidate),
        expected_dtype="",
        total=candidate.size,
        mismatched=candidate.size,
        faults=("missing",),
    )


def _shape_problems(spec: OutputSpec, reference: Array, candidate: Array) -> list[Problem]:
    if not reference.size:
        words = f"there is nothing to compare: the reference's shape is {reference.shape}"
        return [("shape", words)]
    if reference.shape != candidate.shape:
        return [("shape", f"shape (expected {reference.shape}, got {candidate.shape})")]
    fixed = len(spec.shape) == candidate.ndim and all(
        isinstance(dim, str) or dim == size
        for dim, size in zip(spec.shape, candidate.shape, strict=True)
    )
    declared = f"[{', '.join(map(str, spec.shape))}]"
    words = f"shape (the recipe declares {declared}, both give {candidate.shape})"
    return [] if fixed else [("shape", words)]


def _dtype_problems(spec: OutputSpec, candidate: Array) -> list[Problem]:
    got = _name(candidate)
    return [] if got == spec.dtype else [("dtype", f"dtype (expected {spec.dtype}, got {got})")]


def _name(array: Array) -> str:
    return "string" if _is_text(array) else array.dtype.name


def _is_text(array: Array) -> bool:
    return array.dtype.kind in "OUST"


def _is_table(array: Array) -> bool:
    return array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind == "f"  # noqa: PLR2004 - rows, classes


def _is_exact(spec: OutputSpec, reference: Array, candidate: Array) -> bool:
    return spec.role == "labels" or "f" not in (reference.dtype.kind, candidate.dtype.kind)


def _judged(reference: Array, candidate: Array, unjudged: tuple[int, ...]) -> Array:
    """Return the candidate's answer, with the reference's own numbers where none are judged.

    What is NaN or infinite on either side stays.
    """
    if not unjudged:
        return candidate
    rows, judged = list(unjudged), candidate.copy()
    finite = np.isfinite(reference[rows]) & np.isfinite(candidate[rows])
    judged[rows] = np.where(finite, reference[rows], candidate[rows])
    return judged


def _compare_elements(
    spec: OutputSpec,
    reference: Array,
    candidate: Array,
    held: Limits,
    scores: Scores | None,
) -> _Finding:
    if _is_exact(spec, reference, candidate):
        by = scores if spec.role == "labels" else None
        problems, mismatched, ties = compare_labels(reference, candidate, by)
        return _Finding(problems, mismatched, label_ties=ties)
    judged = _judged(reference, candidate, held.unjudged)
    stray = measure(reference, judged, held.tolerance)
    noise = compare_noise(held.own, candidate, gated=held.gated) if held.own else None
    ranks = None
    if spec.role in _RANKED and _is_table(reference) and _is_table(candidate):
        ranks = compare_ranks(reference, judged, held.tie or held.tolerance)
    problems = (
        *number_problems(stray, reference.size),
        *noise_problems(noise),
        *rank_problems(ranks),
    )
    beyond = stray.mismatched - stray.non_finite_mismatched
    return _Finding(
        problems=problems,
        mismatched=stray.non_finite_mismatched + max(beyond, noise.mismatched if noise else 0),
        non_finite_mismatched=stray.non_finite_mismatched,
        non_finite_agreed=stray.non_finite_agreed,
        errors=stray.errors,
        ranks=ranks,
        noise=noise,
        non_finite=map_non_finite(reference, candidate),
        worst_rows=stray.worst_rows,
    )
