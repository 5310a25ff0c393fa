"""How well a model answers where the true answers are known: the source's, and a candidate's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.domain.parity import TaskMetric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tasks.domain.parity import ProbeParity
    from tasks.domain.signature import OutputSpec

    Array = NDArray[np.generic]
    Answers = Mapping[str, Array]

_R2_BUDGET = 1e-6
"""Of a number between minus infinity and 1 that rounding moves: ten float32 ulps of 1."""


def task_metric(
    outputs: Sequence[OutputSpec],
    truth: Array,
    reference: Answers,
    candidate: Answers,
    parity: ProbeParity,
    budget: float,
) -> TaskMetric | None:
    """Hold a candidate's accuracy, or R², against the source's own on the same rows.

    Labels are taken where an output gives them, else the best of the scores, else a number.

    Args:
        outputs: What the recipe declares.
        truth: The true answers, shape (rows,).
        reference: The source's answers to these rows.
        candidate: The candidate's.
        parity: How they compare: rows that tie may be answered either way.
        budget: How much less accuracy is still right.

    Returns:
        None where no output answers the question, or a side lacks it, or its shape is wrong.
    """
    for spec in sorted(outputs, key=lambda each: _ORDER.index(each.role)):
        sides = [each.get(spec.name) for each in (reference, candidate)]
        if any(each is None or len(each) != len(truth) for each in sides):
            continue
        scores = [_score(spec.role, each, truth) for each in sides if each is not None]
        if scores[0] is None or scores[1] is None:
            continue
        name, source = scores[0]
        _, other = scores[1]
        slack = _R2_BUDGET if name == "r2" else budget + _ties(parity, spec.name) / len(truth)
        return TaskMetric(
            probe=parity.probe,
            name=name,
            output=spec.name,
            rows=len(truth),
            source=source,
            candidate=other,
            budget=slack,
        )
    return None


_ORDER = ("labels", "logits", "probabilities", "values")


def _score(role: str, answer: Array, truth: Array) -> tuple[str, float] | None:
    if role == "labels" and answer.size == truth.size:
        return "accuracy", _share_alike(answer.reshape(-1), truth)
    if role in ("logits", "probabilities") and answer.ndim == 2 and truth.dtype.kind in "iu":  # noqa: PLR2004 - rows, classes
        return "accuracy", _share_alike(answer.argmax(axis=1), truth)
    if role == "values" and answer.size == truth.size and truth.dtype.kind == "f":
        right, got = truth.astype(np.float64), answer.reshape(-1).astype(np.float64)
        spread = float(((right - right.mean()) ** 2).sum())
        if spread == 0 or not np.isfinite(got).all():
            return None
        return "r2", 1 - float(((right - got) ** 2).sum()) / spread
    return None


def _share_alike(answer: Array, truth: Array) -> float:
    if answer.dtype.kind == "U" or truth.dtype.kind == "U":
        answer, truth = answer.astype(np.str_), truth.astype(np.str_)
    return float(np.count_nonzero(answer == truth)) / len(truth)


def _ties(parity: ProbeParity, output: str) -> int:
    found = [each for each in parity.outputs if each.name == output]
    return sum(each.label_ties + (each.ranks.ties_swapped if each.ranks else 0) for each in found)
