"""A variant's answers beside the source's: numbers by its profile, the best classes by counting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.domain.comparison import compare_probe
from tasks.domain.profiles import tolerance_for
from tasks.domain.ranking import compare_ranks
from tasks.domain.variants import Agreement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tasks.domain.parity import OutputParity, ProbeParity, ProfileName
    from tasks.domain.signature import OutputSpec

    Answers = Mapping[str, NDArray[np.generic]]

_RANKED = ("logits", "probabilities")


def compare_variant(
    probe: str,
    outputs: Sequence[OutputSpec],
    reference: Answers,
    candidate: Answers,
    profile: ProfileName,
) -> ProbeParity:
    """Compare a variant's answers to one probe with the source's own.

    Numbers are held to the profile. How the best classes are ordered, and labels, are counted
    but judged over all rows by ``task_fault``: eight bits do swap a near tie.
    """
    scored = [each.model_copy(update={"role": _number_role(each)}) for each in outputs]
    compared = compare_probe(probe, scored, reference, candidate, profile)
    specs = {each.name: each for each in outputs}
    judged = [_with_ranks(each, specs, reference, candidate, profile) for each in compared.outputs]
    return compared.model_copy(update={"outputs": tuple(judged)})


def finite_faults(
    probe: str, outputs: Sequence[OutputSpec], reference: Answers, candidate: Answers
) -> ProbeParity | None:
    """Compare only what no rounding excuses: presence, shape, dtype, NaN and infinity.

    Returns:
        The comparison, if something of that is wrong.
    """
    compared = compare_variant(probe, outputs, reference, candidate, "int8")
    if all(_sound(each) for each in compared.outputs):
        return None
    return compared


def _number_role(spec: OutputSpec) -> str:
    return spec.role if spec.role not in _RANKED else "values"


def _with_ranks(
    output: OutputParity,
    specs: Mapping[str, OutputSpec],
    reference: Answers,
    candidate: Answers,
    profile: ProfileName,
) -> OutputParity:
    spec = specs.get(output.name)
    if spec is None or not _sound(output):
        return output
    if spec.role == "labels":
        return output.model_copy(update={"passed": True, "reason": ""})
    if spec.role not in _RANKED or not _is_table(reference[spec.name]):
        return output
    tolerance = tolerance_for(profile, spec)
    ranks = compare_ranks(reference[spec.name], candidate[spec.name], tolerance)
    return output.model_copy(update={"ranks": ranks})


def _sound(output: OutputParity) -> bool:
    """Whether it is there, of the right shape and dtype, and finite where the reference is."""
    return (
        output.total > 0
        and output.shape == output.expected_shape
        and output.dtype == output.expected_dtype
        and not output.non_finite_mismatched
    )


def _is_table(array: NDArray[np.generic]) -> bool:
    return array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind == "f"  # noqa: PLR2004 - rows, classes


def agreement_of(
    outputs: Sequence[OutputSpec],
    parts: Sequence[tuple[Answers, Answers]],
    on: str,
    profile: ProfileName,
    labels: NDArray[np.generic] | None = None,
) -> Agreement:
    """Count the rows whose best class, or label, is the source's own.

    Args:
        outputs: What the recipe declares; the first that scores classes decides, else the
            first of labels.
        parts: The reference's and the variant's answers to each probe that judges.
        on: Which rows those are.
        profile: The recipe's own, by which the source's scores are ties.
        labels: The true answers to all rows, if they are known: classes by number.
    """
    spec = next((each for each in outputs if each.role in _RANKED), None)
    spec = spec or next((each for each in outputs if each.role == "labels"), None)
    nothing = Agreement(rows=0, top1_equal=0, on=on)
    if spec is None or not parts:
        return nothing
    if spec.role in _RANKED and not all(_is_table(reference[spec.name]) for reference, _ in parts):
        return nothing
    left = np.concatenate([reference[spec.name] for reference, _ in parts])
    right = np.concatenate([candidate[spec.name] for _, candidate in parts])
    if spec.role == "labels":
        equal = int(np.count_nonzero(left == right))
        return Agreement(rows=len(left), top1_equal=equal, on=on)
    return Agreement(
        rows=len(left),
        top1_equal=compare_ranks(left, right, tolerance_for(profile, spec)).top1_equal,
        on=on,
        accuracy=_accuracy(right, labels),
        source_accuracy=_accuracy(left, labels),
    )


def _accuracy(scores: NDArray[np.generic], labels: NDArray[np.generic] | None) -> float | None:
    if labels is None or labels.dtype.kind not in "iu" or labels.shape != (len(scores),):
        return None
    return float((scores.argmax(axis=1) == labels).mean())
