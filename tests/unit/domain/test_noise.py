"""What the source's own rounding says of a candidate, and what it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tasks.domain.comparison import compare_probe
from tasks.domain.noise import A_ROUNDING, Truth, lost_rows, own_noise
from tasks.domain.signature import OutputSpec
from tasks.domain.spread import row_scales, typical_magnitude

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.parity import OutputParity

LOGITS = OutputSpec(name="y", dtype="float32", shape=("batch", 4))
DECISION = OutputSpec(name="y", dtype="float32", shape=("batch", 1))
ROWS = 16


def exact(seed: int = 0, width: int = 4) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(ROWS, width)) * 10


def noisy(right: NDArray[np.float64], by: float, seed: int = 1) -> NDArray[np.float32]:
    """Return ``right`` with errors of up to ``by`` of each row's largest, in float32."""
    scale = np.abs(right).max(axis=1, keepdims=True)
    stray = np.random.default_rng(seed).uniform(-by, by, right.shape) * scale
    answer: NDArray[np.float32] = (right + stray).astype(np.float32)
    return answer


def compared(
    spec: OutputSpec,
    right: NDArray[np.float64],
    own: NDArray[np.float32],
    candidate: NDArray[np.float32],
    moved: NDArray[np.float64] | None = None,
) -> OutputParity:
    rows = np.arange(len(right))
    truth = Truth(rows, {"y": right}, {} if moved is None else {"y": moved})
    probe = compare_probe("random", [spec], {"y": own}, {"y": candidate}, "float32-conv", truth)
    return probe.outputs[0]


def test_a_candidate_as_noisy_as_the_source_passes() -> None:
    right = exact()

    output = compared(LOGITS, right, noisy(right, 1e-6), noisy(right, 1e-6, seed=2))

    assert output.passed
    assert output.noise is not None
    assert output.noise.ratio_rms == pytest.approx(1, rel=0.5)


def test_a_candidate_that_strays_many_times_further_fails_though_the_profile_would_pass() -> None:
    right = exact()

    output = compared(LOGITS, right, noisy(right, 1e-7), noisy(right, 9e-6, seed=2))

    assert output.faults == ("numbers",)
    assert "times that of the source's own float32" in output.reason


def test_a_source_that_is_noisier_than_the_profile_may_be_followed_that_far() -> None:
    right = exact()
    own, candidate = noisy(right, 5e-5), noisy(right, 5e-5, seed=2)

    with_noise = compared(LOGITS, right, own, candidate)
    without = compare_probe("random", [LOGITS], {"y": own}, {"y": candidate}, "float32-conv")

    assert with_noise.passed
    assert not without.passed


def test_a_source_that_computes_wider_than_it_answers_leaves_the_profile_to_decide() -> None:
    right = exact()

    output = compared(LOGITS, right, right.astype(np.float32), noisy(right, 5e-6))

    assert output.passed
    assert output.noise is not None
    assert output.noise.bound_max is None
    assert output.noise.ratio_max > 1


def test_such_a_source_is_held_to_what_a_rounding_of_its_inputs_does() -> None:
    inputs = np.random.default_rng(3).normal(size=(ROWS, 50)) * 1000
    weights = np.random.default_rng(4).normal(size=(50, 4))
    weights -= inputs.T @ np.linalg.solve(inputs @ inputs.T, inputs @ weights - exact())
    right = inputs @ weights  # of magnitude 10, and made of numbers of magnitude 1000
    signs = np.random.default_rng(5).choice([-1.0, 1.0], inputs.shape)
    moved = (inputs * (1 + A_ROUNDING * signs)) @ weights
    candidate = inputs.astype(np.float32) @ weights.astype(np.float32)
    wrong = inputs @ (weights * (1 + 1e-2))

    good = compared(LOGITS, right, right.astype(np.float32), candidate, moved)
    bad = compared(LOGITS, right, right.astype(np.float32), wrong.astype(np.float32), moved)

    assert good.passed, good.reason
    assert not bad.passed
    assert not compared(LOGITS, right, right.astype(np.float32), candidate).passed


def test_rows_that_went_another_way_say_nothing_of_rounding() -> None:
    right = exact()
    own = noisy(right, 1e-7)
    own[3] = 5  # as where a threshold lies between float32 and float64

    noise = own_noise(Truth(np.arange(ROWS), {"y": right}), "y", own)

    assert noise is not None
    assert noise.left_out == 1
    assert 3 not in noise.rows
    assert noise.largest < 1e-6


def test_a_row_of_one_number_near_zero_is_measured_by_the_other_rows() -> None:
    decisions = np.array([[-2.0], [1e-7], [3.0]])
    candidate = decisions + 1e-8

    assert typical_magnitude(decisions) == 2
    np.testing.assert_array_equal(row_scales(decisions), [2, 2, 3])
    output = compared(
        DECISION, decisions, decisions.astype(np.float32), candidate.astype(np.float32)
    )
    assert output.passed, output.reason


def test_a_row_of_several_numbers_sets_its_own_scale() -> None:
    table = np.array([[1.0, 2.0], [1e-6, 2e-6]])

    assert typical_magnitude(table) == 0
    np.testing.assert_array_equal(row_scales(table), [2, 2e-6])


def test_a_column_without_a_finite_number_has_no_typical_one() -> None:
    assert typical_magnitude(np.array([[np.nan], [np.inf]])) == 0


def test_a_row_that_float32_does_not_carry_is_not_judged_but_said() -> None:
    right = exact()
    own, candidate = noisy(right, 1e-7), noisy(right, 1e-7, seed=2)
    own[3], candidate[3] = right[3] * 1.01, -right[3]

    output = compared(LOGITS, right, own, candidate)

    assert output.passed, output.reason
    assert output.unjudged == (3,)


def test_where_all_that_float64_answered_is_lost_the_rest_of_the_probe_is_too() -> None:
    right = exact()
    own = (right * 1.01).astype(np.float32)
    truth = Truth(np.array([0, 5]), {"y": right[[0, 5]]})

    assert lost_rows(truth, "y", own) == tuple(range(ROWS))
    own[5] = right[5]
    assert lost_rows(truth, "y", own) == (0,)


def test_a_nan_in_a_row_that_is_not_judged_fails() -> None:
    right = exact()
    own = noisy(right, 1e-7)
    own[3] = right[3] * 1.01
    candidate = own.copy()
    candidate[3, 1] = np.nan

    output = compared(LOGITS, right, own, candidate)

    assert output.faults[0] == "non-finite"
