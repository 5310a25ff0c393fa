"""The rules of parity at their edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.domain.artifact import ModelFormat
from tasks.domain.comparison import compare_output, compare_probe, discriminating_outputs
from tasks.domain.labels import Scores
from tasks.domain.parity import ParityReport, ProbeParity
from tasks.domain.profiles import PROFILES, tolerance_for
from tasks.domain.signature import OutputSpec
from tasks.domain.spread import allowed, row_scales

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.parity import OutputParity

CONV = PROFILES["float32-conv"].base
EXACT = PROFILES["exact"].base


def spec(role: str = "values", dtype: str = "float32", *dims: int | str) -> OutputSpec:
    fields: dict[str, Any] = {
        "name": "y",
        "dtype": dtype,
        "shape": dims or ("batch", "width"),
        "role": role,
    }
    return OutputSpec(**fields)


def compare(reference: NDArray[Any], candidate: NDArray[Any], role: str = "values") -> OutputParity:
    dims = ("batch", *(f"d{i}" for i in range(1, reference.ndim)))
    return compare_output(spec(role, "float32", *dims), reference, candidate, CONV)


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def report_of(*probes: ProbeParity, discriminates: bool = True) -> ParityReport:
    return ParityReport(
        reference=ModelFormat.TORCH,
        candidate=ModelFormat.ONNX,
        runtime="onnxruntime",
        profile="float32-conv",
        tolerance=CONV,
        probes=probes,
        discriminates=discriminates,
    )


# --- numbers ------------------------------------------------------------------------------

finite = st.floats(-(2.0**100), 2.0**100, width=32)
tables = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4), elements=finite)
with_holes = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3))


@given(with_holes)
def test_an_answer_agrees_with_itself_even_where_it_is_nan(answer: NDArray[np.float32]) -> None:
    result = compare(answer, answer.copy())

    assert result.passed, result.reason
    assert result.non_finite_agreed == np.count_nonzero(~np.isfinite(answer))


@given(tables, st.data())
def test_twice_the_tolerance_anywhere_fails(
    answer: NDArray[np.float32], data: st.DataObject
) -> None:
    reference = answer.astype(np.float64)
    place = data.draw(st.integers(0, answer.size - 1))
    scales = row_scales(reference).reshape(-1, *[1] * (reference.ndim - 1))
    candidate = reference.copy()
    candidate.flat[place] += 2 * allowed(reference, scales, CONV).flat[place]

    result = compare(reference, candidate.astype(np.float64))

    assert result.mismatched == 1
    assert result.errors
    assert result.errors.budget == pytest.approx(2, rel=0.01)


@given(tables, st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_nan_or_infinity_on_one_side_fails_wherever_it_is(
    answer: NDArray[np.float32], data: st.DataObject, hole: float
) -> None:
    place = data.draw(st.integers(0, answer.size - 1))
    holed = answer.copy()
    holed.flat[place] = hole

    there, here = compare(answer, holed), compare(holed, answer)

    assert not there.passed
    assert not here.passed
    assert there.non_finite_mismatched == here.non_finite_mismatched == 1
    assert there.mismatched == here.mismatched == 1
    assert "one side only" in there.reason


@given(tables, st.integers(-20, 20))
def test_the_verdict_does_not_depend_on_the_unit(answer: NDArray[np.float32], power: int) -> None:
    reference = answer.astype(np.float64)
    candidate = reference * (1 + 1e-5)
    no_floor = CONV.model_copy(update={"floor": 0.0})
    shape = spec("values", "float64", *(f"d{i}" for i in range(reference.ndim)))

    plain = compare_output(shape, reference, candidate, no_floor)
    scaled = compare_output(shape, np.ldexp(reference, power), np.ldexp(candidate, power), no_floor)

    assert plain.mismatched == scaled.mismatched
    assert plain.errors
    assert scaled.errors
    assert plain.errors.max_rel == pytest.approx(scaled.errors.max_rel)
    assert plain.errors.cosine == pytest.approx(scaled.errors.cosine)


@given(tables, tables)
def test_figures_are_numbers_and_survive_json(
    left: NDArray[np.float32], right: NDArray[np.float32]
) -> None:
    size = min(left.size, right.size)
    result = compare(left.ravel()[:size], right.ravel()[:size])

    assert type(result).model_validate_json(result.model_dump_json()) == result
    assert result.errors
    assert not np.isnan([*result.errors.model_dump(exclude={"histogram"}).values()]).any()
    assert sum(result.errors.histogram) == size - result.non_finite_agreed - (
        result.non_finite_mismatched
    )


def test_plus_infinity_is_not_minus_infinity() -> None:
    up, down = (np.array([[each, 1]], np.float32) for each in (np.inf, -np.inf))

    result = compare(up, down)

    assert not result.passed
    assert result.non_finite_mismatched == 1


def test_an_infinity_on_both_sides_forgives_nothing_beside_it() -> None:
    reference = np.array([[np.inf, 1, 2], [np.nan, 1, 2]], np.float32)
    candidate = np.array([[np.inf, 1.1, 2], [np.nan, 1.1, 2]], np.float32)

    result = compare(reference, candidate)

    assert not result.passed
    assert (result.non_finite_agreed, result.mismatched) == (2, 2)


def test_figures_are_those_of_numpy() -> None:
    reference = noise(7, 3000)
    candidate = reference + noise(7, 3000, seed=1) * np.float32(1e-3)

    errors = compare(reference, candidate).errors

    gap = np.abs(candidate.astype(float) - reference.astype(float))
    dots = (reference.astype(float) * candidate).sum(1)
    lengths = np.linalg.norm(reference.astype(float), axis=1)
    assert errors
    assert errors.max_abs == gap.max()
    assert errors.mean_abs == pytest.approx(gap.mean())
    assert errors.p999_abs == pytest.approx(np.percentile(gap, 99.9))
    cosines = dots / lengths / np.linalg.norm(candidate.astype(float), axis=1)
    assert errors.cosine == pytest.approx(cosines.min())


@pytest.mark.parametrize("shape", [(3, 700_000), (600_000, 2), (2, 3, 300, 400)])
def test_large_outputs_compare_like_small_ones(shape: tuple[int, ...]) -> None:
    reference = noise(*shape)
    candidate = reference.copy()
    candidate[-1].flat[-1] += 1

    result = compare(reference, candidate)

    assert result.mismatched == 1
    assert f"at row {shape[0] - 1}, element {candidate[-1].size - 1}" in result.reason
    assert result.errors
    assert result.errors.p999_abs == 0


def test_only_the_tolerated_share_of_the_rows_own_scale_is_forgiven() -> None:
    reference = np.array([[1000.0, 0.0], [1.0, 0.0]], np.float32)
    off = np.array([[0.0, 5e-3], [0.0, 5e-3]], np.float32)

    result = compare(reference, reference + off)

    assert result.mismatched == 1
    assert "row 1, element 1" in result.reason


def test_a_row_of_zeros_has_no_cosine_with_another() -> None:
    zeros, ones = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)

    same, other = compare(zeros, zeros), compare(zeros, ones)

    assert same.passed
    assert same.errors
    assert same.errors.cosine == 1
    assert not other.passed
    assert other.errors
    assert other.errors.cosine == 0
    assert other.errors.max_rel == np.inf


# --- shape, dtype, presence ---------------------------------------------------------------


@pytest.mark.parametrize(
    "candidate",
    [
        pytest.param(noise(3, 4).T, id="transposed"),
        pytest.param(noise(1, 3), id="one-row-that-would-broadcast"),
        pytest.param(noise(3, 4, 1), id="one-axis-more"),
        pytest.param(noise(0, 4), id="no-rows"),
    ],
)
def test_another_shape_fails_with_all_elements(candidate: NDArray[np.float32]) -> None:
    result = compare(noise(3, 4), candidate)

    assert not result.passed
    assert result.mismatched == 12
    assert "shape (expected (3, 4), got" in result.reason
    assert result.errors is None


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_comparing_nothing_fails(shape: tuple[int, ...]) -> None:
    result = compare(noise(*shape), noise(*shape))

    assert not result.passed
    assert "nothing to compare" in result.reason


def test_a_square_layout_transposed_fails() -> None:
    picture = noise(2, 3, 5, 5)

    assert not compare(picture, picture.transpose(0, 1, 3, 2)).passed


def test_another_dtype_fails_though_every_number_agrees() -> None:
    reference = noise(2, 3)

    result = compare(reference, reference.astype(np.float64))

    assert result.reason == "dtype (expected float32, got float64)"
    assert result.mismatched == 0


def test_the_reference_may_be_more_precise_than_the_declared_dtype() -> None:
    reference = noise(2, 3).astype(np.float64)

    assert compare(reference, reference.astype(np.float32)).passed


def test_a_shape_that_the_recipe_does_not_declare_fails_though_both_give_it() -> None:
    answer = noise(2, 3)

    result = compare_output(spec("values", "float32", "batch", 10), answer, answer, CONV)

    assert "declares [batch, 10]" in result.reason


def test_missing_and_extra_outputs_fail() -> None:
    answer = noise(2, 3)

    result = compare_probe("random", (spec(),), {"y": answer}, {"z": answer}, "float32-conv")

    assert [(each.name, each.passed) for each in result.outputs] == [("y", False), ("z", False)]
    assert not result.passed
    assert "did not return it" in result.outputs[0].reason
    assert result.outputs[0].mismatched == 6


# --- labels -------------------------------------------------------------------------------

LABELS = spec("labels", "int64", "batch")
SCORES = np.array([[0.9, 0.1, 0], [0.1, 0.9, 0], [0.5, 0.5, 0], [0, 0.1, 0.9]], np.float32)
TRUE = np.array([0, 1, 0, 2])


def test_labels_are_equal_or_fail() -> None:
    result = compare_output(LABELS, TRUE, np.array([0, 1, 2, 2]), CONV)

    assert not result.passed
    assert result.reason == "1 of 4 differ (first at row 2, element 0: expected 0, got 2)"
    assert result.tolerance is None


@pytest.mark.parametrize(
    ("labels", "passed", "ties"),
    [
        pytest.param([0, 1, 1, 2], True, 1, id="the-other-of-two-equal-scores"),
        pytest.param([0, 1, 2, 2], False, 0, id="a-class-outside-the-tie"),
        pytest.param([1, 1, 0, 2], False, 0, id="a-row-without-a-tie"),
        pytest.param([0, 1, 7, 2], True, 1, id="a-label-never-seen-may-belong-to-the-tie"),
    ],
)
def test_a_label_of_tied_scores_is_counted_and_passes(
    labels: list[int],
    passed: bool,  # noqa: FBT001 - a parameter of the table above
    ties: int,
) -> None:
    result = compare_output(LABELS, TRUE, np.array(labels), CONV, Scores(SCORES, CONV))

    assert (result.passed, result.label_ties) == (passed, ties)


def test_strings_compare_by_content_not_by_width() -> None:
    words = spec("labels", "string", "batch")
    reference = np.array(["cat", "dog"])

    same = compare_output(words, reference, reference.astype("<U9"), EXACT)
    other = compare_output(words, reference, np.array([b"cat", b"cow"]), EXACT)
    number = compare_output(words, reference, np.array([1, 2]), EXACT)

    assert same.passed
    assert "expected dog, got cow" in other.reason
    assert "text cannot be compared with numbers" in number.reason


def test_large_integers_are_not_rounded() -> None:
    ids = spec("values", "int64", "batch")
    reference = np.array([2**53 + 1])

    result = compare_output(ids, reference, np.array([2**53]), CONV)

    assert not result.passed


# --- ranks --------------------------------------------------------------------------------


def ranked(candidate: list[list[float]], reference: list[list[float]]) -> OutputParity:
    return compare(np.array(reference, np.float32), np.array(candidate, np.float32), "logits")


def test_swapped_ties_are_counted_and_pass() -> None:
    result = ranked([[3.0, 3.00001, 1]], [[3.00001, 3.0, 1]])

    assert result.passed, result.reason
    assert result.ranks
    assert result.ranks.model_dump() == {
        "rows": 1,
        "top1_equal": 1,
        "top5_equal": 1,
        "ties_swapped": 1,
    }


def test_an_order_changed_by_more_than_a_tie_fails_even_within_every_tolerance() -> None:
    gap, scale = 1.6e-5, np.float32(1)
    result = compare(
        np.array([[scale, scale - gap]]),
        np.array([[scale - 0.6 * gap, scale - 0.4 * gap]], np.float64),
        "logits",
    )

    assert result.mismatched == 0
    assert "the best class differs in 1 of 1 rows" in result.reason


def test_fewer_than_five_classes_are_ranked_all() -> None:
    result = ranked([[3, 2, 1]], [[3, 2, 1]])

    assert result.ranks
    assert result.ranks.top5_equal == 1


@given(hnp.arrays(np.float32, (3, 8), elements=finite))
def test_scores_rank_like_themselves(scores: NDArray[np.float32]) -> None:
    result = compare(scores, scores.copy(), "logits")

    assert result.ranks
    assert (result.ranks.top1_equal, result.ranks.top5_equal, result.ranks.ties_swapped) == (
        3,
        3,
        0,
    )


def test_probabilities_have_the_tolerance_of_a_softmax() -> None:
    base = tolerance_for("float32-conv", spec("logits"))
    softmax = tolerance_for("float32-conv", spec("probabilities"))

    assert softmax.scale > base.scale


# --- does it prove anything? --------------------------------------------------------------


def test_answers_that_do_not_differ_between_rows_prove_nothing() -> None:
    outputs = (spec(), spec().model_copy(update={"name": "z"}))
    same = np.repeat(noise(1, 4), 5, axis=0)

    found = discriminating_outputs(outputs, {"y": same, "z": noise(5, 4)}, "float32-conv")

    assert found == {"z"}


@pytest.mark.parametrize("answer", [np.zeros((4, 3)), np.full((4, 3), np.nan), noise(1, 3)])
def test_zeros_nans_and_a_single_row_discriminate_nothing(answer: NDArray[Any]) -> None:
    assert not discriminating_outputs((spec(),), {"y": answer}, "float32-conv")


def test_a_report_without_probes_or_without_discrimination_does_not_pass() -> None:
    good = compare_probe("random", (spec(),), {"y": noise(2, 3)}, {"y": noise(2, 3)}, "exact")

    assert good.passed
    assert not report_of().passed
    assert not report_of(good, discriminates=False).passed
    assert report_of(good).passed
    assert report_of(good).reasons() == ()


def test_the_summary_says_how_close_a_good_candidate_is() -> None:
    good = compare_probe("random", (spec(),), {"y": noise(2, 3)}, {"y": noise(2, 3)}, "exact")

    assert report_of(good).summary() == (
        "ONNX against PyTorch: equal on 2 rows of 1 probes, "
        "using 0.0% of the tolerance 'float32-conv'"
    )


def test_the_summary_says_the_first_reasons_and_how_many_more() -> None:
    bad = compare_probe("random", (spec(),), {"y": noise(2, 3)}, {"y": -noise(2, 3)}, "exact")
    report = report_of(*[bad] * 5)

    assert report.summary().startswith("ONNX against PyTorch: differs: random/y: 6 of 6 elements")
    assert report.summary().endswith("; and 2 more")
    assert report_of(bad.model_copy(update={"outputs": ()})).reasons() == (
        "random: no output was compared",
    )
