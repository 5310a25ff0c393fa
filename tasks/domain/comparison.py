"""The rules of parity: when a candidate's answers count as the reference's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.domain.parity import ErrorSpread, OutputParity, ProbeParity, RankAgreement
from tasks.domain.profiles import tolerance_for
from tasks.domain.ranking import compare_ranks, tied_labels
from tasks.domain.spread import measure
from tasks.domain.wording import number_problems, rank_problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tasks.domain.parity import ProfileName, Tolerance
    from tasks.domain.recipe import OutputSpec

    Array = NDArray[np.generic]
    Answers = Mapping[str, Array]

_RANKED = ("logits", "probabilities")


class Scores(NamedTuple):
    """The reference's scores, by which a differing label may prove to be a tie."""

    values: NDArray[np.generic]
    """Shape (rows, classes)."""
    tolerance: Tolerance


class _Finding(NamedTuple):
    """What comparing the elements of one output found; ``problems`` are in words."""

    problems: tuple[str, ...] = ()
    mismatched: int = 0
    non_finite_mismatched: int = 0
    non_finite_agreed: int = 0
    label_ties: int = 0
    errors: ErrorSpread | None = None
    ranks: RankAgreement | None = None


def compare_probe(
    probe: str,
    outputs: Sequence[OutputSpec],
    reference: Answers,
    candidate: Answers,
    profile: ProfileName,
) -> ProbeParity:
    """Compare the answers to one probe, output by output.

    An output that the recipe declares and one side lacks fails, as does one that the candidate
    adds. Rows are those of the reference's answers.

    Args:
        probe: The probe's name.
        outputs: What the recipe declares.
        reference: The source framework's answers, by output name, first axis the rows.
        candidate: The candidate's.
        profile: How far numbers may stray.
    """
    compared = []
    for spec in outputs:
        if spec.name not in reference or spec.name not in candidate:
            compared.append(_missing(spec, reference))
            continue
        tolerance = tolerance_for(profile, spec, probe)
        scores = find_scores(outputs, reference, profile)
        compared.append(
            compare_output(spec, reference[spec.name], candidate[spec.name], tolerance, scores)
        )
    declared = {spec.name for spec in outputs}
    extra = [_extra(name, candidate[name]) for name in candidate if name not in declared]
    rows = max((len(each) for each in reference.values() if each.ndim), default=0)
    return ProbeParity(probe=probe, rows=rows, outputs=(*compared, *extra))


def compare_output(
    spec: OutputSpec,
    reference: Array,
    candidate: Array,
    tolerance: Tolerance,
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
        tolerance: How far each element may stray.
        scores: By which differing labels may prove to be ties.
    """
    problems = [*_shape_problems(spec, reference, candidate), *_dtype_problems(spec, candidate)]
    comparable = reference.shape == candidate.shape and reference.size > 0
    finding = _Finding(mismatched=max(reference.size, candidate.size))
    if comparable and _is_text(reference) != _is_text(candidate):
        problems.append(f"text cannot be compared with numbers ({_name(candidate)})")
    elif comparable:
        finding = _compare_elements(spec, reference, candidate, tolerance, scores)
    reason = "; ".join((*problems, *finding.problems))
    return OutputParity(
        name=spec.name,
        passed=not reason,
        reason=reason,
        shape=candidate.shape,
        expected_shape=reference.shape,
        dtype=_name(candidate),
        expected_dtype=spec.dtype,
        total=max(reference.size, candidate.size),
        tolerance=None if _is_exact(spec, reference, candidate) else tolerance,
        mismatched=finding.mismatched,
        non_finite_mismatched=finding.non_finite_mismatched,
        non_finite_agreed=finding.non_finite_agreed,
        label_ties=finding.label_ties,
        errors=finding.errors,
        ranks=finding.ranks,
    )


def find_scores(
    outputs: Sequence[OutputSpec], reference: Answers, profile: ProfileName
) -> Scores | None:
    """Return the first output that scores classes, if any does."""
    for spec in outputs:
        values = reference.get(spec.name)
        if spec.role in _RANKED and values is not None and _is_table(values):
            return Scores(values, tolerance_for(profile, spec))
    return None


def discriminating_outputs(
    outputs: Sequence[OutputSpec], reference: Answers, profile: ProfileName
) -> frozenset[str]:
    """Return the outputs by which a model that answers other rows would be noticed.

    The reference's own answers, moved by one row, stand for such a wrong model: where the
    comparison passes them, it proves nothing.
    """
    moved = {name: np.roll(each, 1, axis=0) for name, each in reference.items() if each.ndim}
    result = compare_probe("moved", outputs, reference, moved, profile)
    noticed = {each.name for each in result.outputs if each.mismatched}
    return frozenset(noticed & {spec.name for spec in outputs} & moved.keys())


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
    )


def _shape_problems(spec: OutputSpec, reference: Array, candidate: Array) -> list[str]:
    if not reference.size:
        return [f"there is nothing to compare: the reference's shape is {reference.shape}"]
    if reference.shape != candidate.shape:
        return [f"shape (expected {reference.shape}, got {candidate.shape})"]
    fixed = len(spec.shape) == candidate.ndim and all(
        isinstance(dim, str) or dim == size
        for dim, size in zip(spec.shape, candidate.shape, strict=True)
    )
    declared = f"[{', '.join(map(str, spec.shape))}]"
    return [] if fixed else [f"shape (the recipe declares {declared}, both give {candidate.shape})"]


def _dtype_problems(spec: OutputSpec, candidate: Array) -> list[str]:
    got = _name(candidate)
    return [] if got == spec.dtype else [f"dtype (expected {spec.dtype}, got {got})"]


def _name(array: Array) -> str:
    return "string" if _is_text(array) else array.dtype.name


def _is_text(array: Array) -> bool:
    return array.dtype.kind in "OUST"


def _is_table(array: Array) -> bool:
    return array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind == "f"  # noqa: PLR2004 - rows, classes


def _is_exact(spec: OutputSpec, reference: Array, candidate: Array) -> bool:
    return spec.role == "labels" or "f" not in (reference.dtype.kind, candidate.dtype.kind)


def _compare_elements(
    spec: OutputSpec,
    reference: Array,
    candidate: Array,
    tolerance: Tolerance,
    scores: Scores | None,
) -> _Finding:
    if _is_exact(spec, reference, candidate):
        return _compare_labels(spec, reference, candidate, scores)
    stray = measure(reference, candidate, tolerance)
    ranks = None
    if spec.role in _RANKED and _is_table(reference) and _is_table(candidate):
        ranks = compare_ranks(reference, candidate, tolerance)
    return _Finding(
        problems=(*number_problems(stray, reference.size), *rank_problems(ranks)),
        mismatched=stray.mismatched,
        non_finite_mismatched=stray.non_finite_mismatched,
        non_finite_agreed=stray.non_finite_agreed,
        errors=stray.errors,
        ranks=ranks,
    )


def _compare_labels(
    spec: OutputSpec, reference: Array, candidate: Array, scores: Scores | None
) -> _Finding:
    rows = reference.shape[0] if reference.ndim else 1
    left, right = (_plain(each).reshape(rows, -1) for each in (reference, candidate))
    differs = left != right
    if left.dtype.kind == "f" and right.dtype.kind == "f":
        differs &= ~(np.isnan(left) & np.isnan(right))
    tied = np.zeros(rows, np.bool_)
    if spec.role == "labels" and scores and left.shape == (len(scores.values), 1):
        tied = tied_labels(left[:, 0], right[:, 0], scores.values, scores.tolerance)
    wrong = differs & ~tied[:, None]
    problems = []
    if wrong.any():
        row, element = np.unravel_index(int(wrong.argmax()), wrong.shape)
        first = f"expected {left[row, element]!s:.40}, got {right[row, element]!s:.40}"
        place = f"first at row {row}, element {element}: {first}"
        problems = [f"{np.count_nonzero(wrong):,} of {wrong.size:,} differ ({place})"]
    return _Finding(
        problems=tuple(problems),
        mismatched=int(np.count_nonzero(wrong)),
        label_ties=int(np.count_nonzero(differs.any(axis=1) & tied)),
    )


def _plain(array: Array) -> Array:
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")  # type: ignore[arg-type]  # kind S is bytes
    return array.astype(np.str_) if array.dtype.kind in "OT" else array
