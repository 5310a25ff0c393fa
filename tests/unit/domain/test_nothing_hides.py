"""No metric can hide a NaN, a missing output, a transposed layout or an all-zero input.

The traps are those in which tools of the field were found to pass a wrong model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.artifact import ModelFormat
from tasks.domain.comparison import compare_probe, discriminating_outputs
from tasks.domain.noise import Truth
from tasks.domain.parity import ParityReport
from tasks.domain.profiles import PROFILES
from tasks.domain.signature import OutputSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.parity import OutputParity, ProfileName

SCORES = OutputSpec(name="y", dtype="float32", shape=("batch", "width"), role="probabilities")
MAP = OutputSpec(name="y", dtype="float32", shape=("batch", "channels", "height", "width"))
PROFILE_NAMES: tuple[ProfileName, ...] = tuple(PROFILES)

profiles = st.sampled_from(PROFILE_NAMES)
seeds = st.integers(0, 2**32 - 1)
sides = st.sampled_from(["float32 alone", "float64 too"])
holes = st.sampled_from(["nan", "inf", "-inf"])


def random(seed: int, *shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape)


def compared(
    spec: OutputSpec,
    right: NDArray[np.float64],
    candidate: dict[str, NDArray[Any]],
    profile: ProfileName = "float32-conv",
    *,
    side: str = "float64 too",
) -> OutputParity:
    """Compare with a reference that is ``right`` in float32, and in float64 too if asked."""
    truth = Truth(np.arange(len(right)), {spec.name: right}) if side == "float64 too" else None
    reference = {spec.name: right.astype(np.float32)}
    return compare_probe("random", [spec], reference, candidate, profile, truth).outputs[0]


@given(
    seeds,
    profiles,
    sides,
    st.integers(0, 79),
    st.sampled_from(["nan", "inf", "-inf"]),
)
def test_a_planted_nan_or_infinity_fails_under_every_profile(
    seed: int, profile: ProfileName, side: str, place: int, hole: str
) -> None:
    right = random(seed, 4, 20)
    candidate = right.astype(np.float32)
    candidate.flat[place] = float(hole)

    output = compared(SCORES, right, {"y": candidate}, profile, side=side)

    assert not output.passed
    assert "non-finite" in output.faults
    assert output.non_finite is not None
    assert output.non_finite.rows == (place // 20,)
    assert output.non_finite.elements == (place % 20,)


@given(seeds, profiles, sides)
def test_a_missing_output_fails_under_every_profile(
    seed: int, profile: ProfileName, side: str
) -> None:
    output = compared(SCORES, random(seed, 4, 20), {}, profile, side=side)

    assert output.faults == ("missing",)


@given(seeds, st.integers(2, 6), st.integers(2, 6), sides)
def test_height_and_width_swapped_fail_even_where_both_are_the_same(
    seed: int, height: int, width: int, side: str
) -> None:
    right = random(seed, 3, 2, height, width)
    swapped = np.ascontiguousarray(right.swapaxes(2, 3)).astype(np.float32)

    output = compared(MAP, right, {"y": swapped}, side=side)

    assert not output.passed


@given(seeds, st.integers(3, 8), sides)
def test_channels_last_in_place_of_first_fails_even_in_one_shape(
    seed: int, size: int, side: str
) -> None:
    right = random(seed, 2, size, size, size)
    last = np.ascontiguousarray(np.moveaxis(right, 1, 3)).astype(np.float32)

    output = compared(MAP, right, {"y": last}, side=side)

    assert not output.passed


@given(seeds, profiles)
def test_a_source_that_answers_every_row_alike_proves_nothing(
    seed: int, profile: ProfileName
) -> None:
    alike = np.repeat(random(seed, 1, 20), 4, axis=0)  # what an input of zeros leaves behind
    answers = {"y": alike.astype(np.float32)}
    truth = Truth(np.arange(4), {"y": alike})
    probe = compare_probe("zeros", [SCORES], answers, answers, profile, truth)
    noticed = discriminating_outputs([SCORES], answers, profile, truth)

    report = ParityReport(
        reference=ModelFormat.TORCH,
        candidate=ModelFormat.ONNX,
        runtime="onnxruntime",
        profile=profile,
        tolerance=PROFILES[profile].base,
        probes=(probe,),
        discriminates=bool(noticed),
    )

    assert probe.passed
    assert not report.passed


@given(seeds, sides)
def test_a_model_whose_input_became_zeros_fails(seed: int, side: str) -> None:
    weights = random(seed, 5, 20)
    inputs = random(seed + 1, 4, 5)
    bias = random(seed + 2, 20)

    output = compared(
        SCORES,
        inputs @ weights + bias,
        {"y": np.asarray(0 * inputs @ weights + bias, np.float32)},
        side=side,
    )

    assert not output.passed


@given(seeds, st.floats(1e-4, 1), st.integers(0, 79))
def test_one_wrong_element_fails_wherever_it_is(seed: int, by: float, place: int) -> None:
    right = random(seed, 4, 20)
    candidate = right.astype(np.float32)
    candidate.flat[place] += by * np.abs(right).max()

    output = compared(SCORES, right, {"y": candidate})

    assert "numbers" in output.faults
    assert output.worst_rows[0].row == place // 20


def test_990_nan_of_a_thousand_fail_whatever_the_other_ten_say() -> None:
    right = np.full((1, 1000), 1e-3)
    candidate = right.astype(np.float32)
    candidate[0, 10:] = np.nan

    output = compared(SCORES, right, {"y": candidate})

    assert output.non_finite_mismatched == 990
    assert output.non_finite is not None
    assert output.non_finite.element_count == 990
    assert not output.passed


def test_a_reference_of_zero_with_no_error_does_not_hide_the_error_beside_it() -> None:
    right = np.array([[0.0, 2.0, 1.0]])
    candidate = np.array([[0.0, 1.0, 1.0]], np.float32)

    output = compared(SCORES, right, {"y": candidate})

    assert not output.passed
    assert output.errors is not None
    assert output.errors.max_rel == pytest.approx(0.5)


def test_a_nan_on_both_sides_agrees_and_is_told() -> None:
    right = random(0, 4, 20)
    right[1, 3] = np.nan
    answers = {"y": right.astype(np.float32)}
    probe = compare_probe("random", [SCORES], answers, answers, "float32-conv")

    report = ParityReport(
        reference=ModelFormat.TORCH,
        candidate=ModelFormat.ONNX,
        runtime="onnxruntime",
        profile="float32-conv",
        tolerance=PROFILES["float32-conv"].base,
        probes=(probe,),
        discriminates=True,
    )

    assert report.passed
    assert "NaN or infinite on both sides alike: 1" in report.summary()
    holes = probe.outputs[0].non_finite
    assert holes is not None
    assert (holes.reference_nan, holes.candidate_nan, holes.rows) == (1, 1, (1,))


def test_the_histogram_counts_every_element_in_its_decade() -> None:
    right = np.array([[1.0, 0.5, 0.25, 0.125]])
    candidate = np.array([[1.0, 0.5 + 2e-4, 0.25 - 3e-2, 0.125 + 2.0]])

    output = compared(SCORES, right, {"y": candidate.astype(np.float32)})

    assert output.errors is not None
    # no error, below 1e-9, from 1e-9 on decade by decade, 1 or more
    assert output.errors.histogram == (1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1)
    assert output.errors.rmse == pytest.approx(np.sqrt((2e-4**2 + 3e-2**2 + 4) / 4), rel=1e-4)


def test_at_most_five_rows_are_named_the_worst_first() -> None:
    right = random(0, 40, 20)
    candidate = right + np.linspace(0, 1e-3, 40)[:, None]

    output = compared(SCORES, right, {"y": candidate.astype(np.float32)})

    assert len(output.worst_rows) == 5
    budgets = [each.budget for each in output.worst_rows]
    assert budgets == sorted(budgets, reverse=True)
