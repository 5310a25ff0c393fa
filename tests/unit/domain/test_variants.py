"""The rules of variants: what a recipe may ask for, who judges, and what is worth its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tasks.domain.artifact import ModelFormat
from tasks.domain.signature import OutputSpec
from tasks.domain.variant_comparison import agreement_of, compare_variant, finite_faults
from tasks.domain.variant_rules import is_faster, plan_calibration, race_of, task_fault, worth
from tasks.domain.variants import (
    Agreement,
    Float16,
    Int8,
    VariantOutcome,
    VariantSpec,
    published_variant,
    variants_fault,
)

LOGITS = OutputSpec(name="logits", dtype="float32", shape=("batch", 4), role="logits")
LABEL = OutputSpec(name="label", dtype="int64", shape=("batch",), role="labels")
READ = TypeAdapter[VariantSpec](VariantSpec)


def scores(*best: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return one row for each: the class that is best has 10, the others less than 1."""
    rows = np.linspace(0, 0.9, 4, dtype=np.float32)[None].repeat(len(best), axis=0)
    rows[range(len(best)), best] = 10
    return rows


# --- what a recipe asks for -----------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    ['"int8"', '{"kind": "int8"}', '{"kind": "int8", "keep_float32": []}'],
    ids=["its-name-alone", "a-mapping", "an-option-as-it-is"],
)
def test_a_name_alone_means_its_options_as_they_are(written: str) -> None:
    assert READ.validate_json(written, strict=True) == Int8()


def test_a_strict_recipe_takes_a_list_of_what_to_keep() -> None:
    text = '{"kind": "float16", "keep_float32": ["Softmax", "node_1"]}'

    spec = READ.validate_json(text, strict=True)

    assert spec == Float16(keep_float32=("Softmax", "node_1"))


@pytest.mark.parametrize(
    "written",
    ["fp16", {"kind": "float16", "calibration_rows": 3}, {"kind": "int8", "top1_at_least": 97}],
    ids=["an-unknown-kind", "an-option-of-another-kind", "a-percentage"],
)
def test_what_no_variant_has_is_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        READ.validate_python(written)


def test_a_kind_twice_and_int8_without_real_rows_are_faults_of_a_recipe() -> None:
    assert "there twice" in variants_fault((Int8(), Int8()), real_data=True)
    assert "variants: 'int8' is" in variants_fault((Float16(), Int8()), real_data=False)
    assert variants_fault((Float16(), Int8()), real_data=True) == ""


# --- which rows calibrate, and which judge ------------------------------------------------------


def test_rows_that_training_kept_back_calibrate_and_the_whole_probe_judges() -> None:
    plan = plan_calibration(64, 64, 450)

    assert plan.spare == slice(64, 128)
    assert plan.judged == 64


@pytest.mark.parametrize(
    ("wanted", "rows", "judged"), [(64, 32, 16), (8, 32, 24), (64, 16, 8)],
    ids=["half", "as-many-as-wanted", "the-fewest"],
)  # fmt: skip
def test_a_probe_without_spare_rows_is_split_and_no_row_is_in_both(
    wanted: int, rows: int, judged: int
) -> None:
    plan = plan_calibration(wanted, rows)

    assert plan.spare is None
    assert plan.judged == judged
    assert plan.probe == slice(judged, rows)


def test_too_few_rows_serve_both_and_that_is_said() -> None:
    plan = plan_calibration(64, 5)

    assert (plan.probe, plan.judged) == (slice(5), 5)
    assert "too few to set some apart" in plan.words


# --- smaller, faster, or refused ----------------------------------------------------------------


def test_a_race_is_told_by_medians_of_its_pairs() -> None:
    race = race_of([(10, 5), (10, 6), (10, 100)], "cpu")

    assert (race.parent_ms, race.variant_ms, race.ratio) == (10, 6, 0.6)
    assert race.wins == pytest.approx(2 / 3, abs=1e-4)


@pytest.mark.parametrize(
    ("pairs", "faster"),
    [
        pytest.param([(10, 5)] * 9, True, id="twice-as-fast-each-time"),
        pytest.param([(10, 9.2)] * 30, False, id="always-but-by-too-little"),
        pytest.param([(10, 5)] * 8 + [(10, 11)] * 2, False, id="much-but-too-seldom"),
        pytest.param([(10, 10)] * 9, False, id="the-same"),
    ],
)
def test_faster_means_by_enough_and_often_enough(
    pairs: list[tuple[float, float]], *, faster: bool
) -> None:
    assert is_faster(race_of(pairs, "cpu")) is faster


@pytest.mark.parametrize(
    ("size", "variant_ms", "kept", "word"),
    [
        pytest.param(50, 20, True, "smaller: 50%", id="smaller-though-slower"),
        pytest.param(120, 5, True, "faster: 120%", id="faster-though-larger"),
        pytest.param(50, 5, True, "smaller and faster", id="both"),
        pytest.param(95, 10, False, "neither smaller nor faster", id="hardly-smaller"),
        pytest.param(150, 11, False, "neither smaller nor faster", id="worse-in-both"),
    ],
)
def test_a_variant_that_gains_nothing_is_refused(
    size: int, variant_ms: float, word: str, *, kept: bool
) -> None:
    verdict, words = worth(100, size, race_of([(10, variant_ms)] * 9, "cpu"))

    assert verdict is kept
    assert word in words


def test_what_was_not_timed_can_only_be_smaller() -> None:
    assert worth(100, 50, None)[0]
    assert not worth(100, 99, None)[0]


# --- how it does the task -----------------------------------------------------------------------


def test_ranks_are_counted_and_do_not_fail_a_comparison() -> None:
    right, other = scores(0, 1), scores(0, 1)
    right[1, 2], other[1, 2] = 9.9, 10.1  # a near tie, the other way round

    compared = compare_variant("rows", [LOGITS], {"logits": right}, {"logits": other}, "int8")

    assert compared.passed
    agreement = agreement_of(
        [LOGITS], [({"logits": right}, {"logits": other})], "rows", "float32-conv"
    )
    assert (agreement.rows, agreement.top1_equal) == (2, 1)
    assert "1 of 2 rows, 50.0%" in task_fault(Int8(), agreement)


def test_numbers_beyond_the_profile_fail_whatever_the_best_class_is() -> None:
    right = scores(0, 1)

    compared = compare_variant("rows", [LOGITS], {"logits": right}, {"logits": 2 * right}, "int8")

    assert not compared.passed


def test_labels_that_differ_are_counted_for_the_task() -> None:
    right, other = {"label": np.array([0, 1, 2])}, {"label": np.array([0, 1, 1])}

    assert compare_variant("rows", [LABEL], right, other, "int8").passed
    assert agreement_of([LABEL], [(right, other)], "rows", "trees").top1_equal == 2


@pytest.mark.parametrize(
    ("answers", "fails"),
    [
        pytest.param({"logits": 5 * scores(0, 1)}, False, id="far-off-but-finite"),
        pytest.param({"logits": np.full_like(scores(0, 1), np.inf)}, True, id="infinite"),
        pytest.param({"logits": scores(0, 1).astype(np.float16)}, True, id="another-dtype"),
        pytest.param({"logits": scores(0)}, True, id="a-row-short"),
        pytest.param({}, True, id="no-output"),
    ],
)
def test_no_rounding_excuses_what_is_missing_or_infinite(
    answers: dict[str, Any], *, fails: bool
) -> None:
    fault = finite_faults("random", [LOGITS], {"logits": scores(0, 1)}, answers)

    assert (fault is not None) is fails
    assert fault is None or not fault.passed


def test_a_drop_of_accuracy_breaks_the_budget_where_labels_are_known() -> None:
    right, other = {"logits": scores(0, 1, 2, 3)}, {"logits": scores(0, 1, 2, 0)}
    labels = np.array([0, 1, 2, 3])

    agreement = agreement_of([LOGITS], [(right, other)], "held-out", "float32-conv", labels)

    assert (agreement.source_accuracy, agreement.accuracy) == (1.0, 0.75)
    loose = Float16(top1_at_least=0.5)
    assert "accuracy drops by 0.2500 to 0.7500" in task_fault(loose, agreement)
    assert task_fault(Float16(top1_at_least=0.5, accuracy_drop_at_most=0.3), agreement) == ""


def test_a_model_that_scores_no_classes_has_no_task_to_fail() -> None:
    values = OutputSpec(name="logits", dtype="float32", shape=("batch", 4))
    answers = {"logits": scores(0)}

    agreement = agreement_of([values], [(answers, answers)], "random", "float32-conv")

    assert agreement == Agreement(rows=0, top1_equal=0, on="random")
    assert task_fault(Int8(), agreement) == ""


def test_the_manifest_names_no_folder_of_a_refused_variant() -> None:
    refused = VariantOutcome(kind="int8", reason="strays", parent_bytes=10)

    told = published_variant(refused)

    assert (told.released, told.folder, told.sha256) == (False, "", None)
    assert (refused.folder, told.parent) == ("onnx-int8", ModelFormat.ONNX)
