"""Accuracy and R² where the true answers are known, ties aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tasks.domain.comparison import compare_probe
from tasks.domain.signature import OutputSpec
from tasks.domain.task_metric import task_metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.parity import TaskMetric

LABELS = OutputSpec(name="label", dtype="int64", shape=("batch",), role="labels")
LOGITS = OutputSpec(name="logits", dtype="float32", shape=("batch", 3), role="logits")
VALUES = OutputSpec(name="value", dtype="float32", shape=("batch", 1))
TRUE = np.array([0, 1, 2, 0])
SCORES = np.eye(3, dtype=np.float32)[TRUE] * 4


def metric(
    spec: OutputSpec,
    reference: NDArray[Any],
    candidate: NDArray[Any],
    truth: NDArray[Any] = TRUE,
    budget: float = 0,
) -> TaskMetric | None:
    left, right = {spec.name: reference}, {spec.name: candidate}
    parity = compare_probe("held-out", [spec], left, right, "float32-conv")
    return task_metric([spec], truth, left, right, parity, budget)


def test_a_label_less_that_is_true_fails() -> None:
    found = metric(LABELS, TRUE, np.array([0, 1, 2, 1]))

    assert found is not None
    assert (found.name, found.source, found.candidate, found.rows) == ("accuracy", 1, 0.75, 4)
    assert not found.passed


def test_a_budget_allows_for_less() -> None:
    found = metric(LABELS, TRUE, np.array([0, 1, 2, 1]), budget=0.25)

    assert found is not None
    assert found.passed


def test_answering_better_than_the_source_passes() -> None:
    found = metric(LABELS, np.array([0, 1, 2, 1]), TRUE)

    assert found is not None
    assert found.passed


def test_scores_answer_by_the_best_class() -> None:
    wrong = SCORES.copy()
    wrong[0] = wrong[1]

    found = metric(LOGITS, SCORES, wrong)

    assert found is not None
    assert (found.source, found.candidate) == (1, 0.75)


def test_a_swap_of_scores_that_tie_costs_nothing() -> None:
    reference = SCORES.copy()
    reference[0, 1] = reference[0, 0] - np.float32(1e-6)
    candidate = reference.copy()
    candidate[0, 1] = reference[0, 0] + np.float32(1e-6)

    found = metric(LOGITS, reference, candidate)

    assert found is not None
    assert found.candidate == 0.75
    assert found.passed


def test_numbers_are_held_to_r2() -> None:
    truth = np.array([1.0, 2.0, 3.0, 5.0])
    reference = truth.astype(np.float32)[:, None]

    good = metric(VALUES, reference, reference + np.float32(1e-6), truth)
    bad = metric(VALUES, reference, reference + np.float32(1), truth)

    assert good is not None
    assert good.name == "r2"
    assert good.passed
    assert bad is not None
    assert not bad.passed


def test_a_class_is_not_judged_by_numbers_that_are_no_scores() -> None:
    assert metric(VALUES, TRUE.astype(np.float32)[:, None], TRUE[:, None]) is None


@pytest.mark.parametrize("rows", [0, 3, 5])
def test_other_rows_than_the_truth_s_say_nothing(rows: int) -> None:
    assert metric(LABELS, TRUE, np.zeros(rows, np.int64)) is None
