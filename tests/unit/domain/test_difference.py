"""What differs between two manifests, and what is said to be alike."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.domain.artifact import Attempt, Cost, ModelFormat, OnnxFacts
from tasks.domain.difference import Change, difference
from tasks.domain.parity import ErrorSpread, OutputParity, ParityReport, ProbeParity, Tolerance
from tasks.domain.release import Manifest, PublishedFormat, ReleaseFile
from tasks.domain.tables import difference_rows
from tasks.domain.variants import VariantOutcome, published_variant
from tests.support.publisher import manifest_maker

TOLERANCE = Tolerance(rtol=1e-4, scale=1e-5, floor=1e-7)
SPREAD: dict[str, float] = {
    "max_abs": 1e-6, "max_rel": 1e-5, "mean_abs": 1e-7, "p999_abs": 9e-7, "cosine": 1.0,
    "budget": 0.1,
}  # fmt: skip


def onnx_format(operators: dict[str, int], opset: int, spread: dict[str, float]) -> PublishedFormat:
    output = OutputParity(
        name="logits",
        passed=True,
        shape=(4, 10),
        expected_shape=(4, 10),
        dtype="float32",
        expected_dtype="float32",
        total=40,
        mismatched=0,
        errors=ErrorSpread(**spread),
    )
    parity = ParityReport(
        reference=ModelFormat.TORCH,
        candidate=ModelFormat.ONNX,
        runtime="onnxruntime 1.32.0",
        profile="float32-conv",
        tolerance=TOLERANCE,
        probes=(ProbeParity(probe="random", rows=4, outputs=(output,)),),
        discriminates=True,
    )
    return PublishedFormat(
        format=ModelFormat.ONNX,
        folder="onnx",
        sha256="0" * 64,
        size_bytes=1000,
        converter="torch-dynamo",
        attempts=(Attempt(converter="torch-dynamo", succeeded=True, reason="first choice"),),
        checks=(),
        onnx=OnnxFacts(
            ir_version=10,
            opsets={"ai.onnx": opset},
            operators=operators,
            parameters=77,
            external_data=False,
        ),
        parity=parity,
        notes=(),
    )


def manifest(version: int, **changes: Any) -> Manifest:
    files = (ReleaseFile(path="onnx/model.onnx", sha256="1" * 64, size_bytes=1000),)
    plain = manifest_maker("linear")(version, files)
    formats = (onnx_format({"Gemm": 2, "Relu": 1}, 17, SPREAD),)
    return plain.model_copy(update={"formats": formats, "tools": {"torch": "2.14.1"}, **changes})


def changes_of(before: Manifest, after: Manifest) -> dict[tuple[str, str], tuple[Any, Any]]:
    found = difference(before, after)
    return {(each.topic, each.name): (each.before, each.after) for each in found.changes}


def test_what_became_of_a_variant_is_among_the_facts() -> None:
    before, after = (
        VariantOutcome(kind="int8", reason="", parent_bytes=10, released=released)
        for released in (True, False)
    )

    found = changes_of(
        manifest(1, variants=(published_variant(before),)),
        manifest(2, variants=(published_variant(after),)),
    )

    assert found == {("formats", "onnx-int8 released"): (True, False)}


def test_two_releases_that_are_alike_differ_in_nothing() -> None:
    found = difference(manifest(1), manifest(2))

    assert (found.before, found.after, found.changes) == (1, 2, ())
    assert found.unchanged > 30
    assert difference_rows(found) == []


def test_operators_that_came_went_or_are_more_are_counted() -> None:
    after = manifest(2, formats=(onnx_format({"Gemm": 3, "Softmax": 1}, 17, SPREAD),))

    assert changes_of(manifest(1), after) == {
        ("operators", "onnx Gemm"): (2, 3),
        ("operators", "onnx Relu"): (1, None),
        ("operators", "onnx Softmax"): (None, 1),
    }


def test_how_long_a_row_takes_is_compared() -> None:
    (slow,) = manifest(1).formats
    after = manifest(2, formats=(slow.model_copy(update={"ms_per_row": 7.5}),))

    assert changes_of(manifest(1), after) == {("formats", "onnx ms_per_row"): (None, 7.5)}


def test_opset_numerics_tools_costs_and_metrics_are_compared_each_by_name() -> None:
    worse = SPREAD | {"max_abs": 4e-6, "budget": float("inf")}
    after = manifest(
        2,
        formats=(onnx_format({"Gemm": 2, "Relu": 1}, 18, worse),),
        tools={"torch": "2.14.2", "onnx": "1.23.2"},
        costs={"export": Cost(seconds=2.0)},
        metrics={"accuracy": 0.9},
    )

    assert changes_of(manifest(1), after) == {
        ("metrics", "accuracy"): (None, 0.9),
        ("opset", "onnx ai.onnx"): (17, 18),
        ("parity", "onnx budget"): (0.1, float("inf")),
        ("parity", "onnx random/logits max_abs"): (1e-6, 4e-6),
        ("parity", "onnx random/logits budget"): (0.1, float("inf")),
        ("seconds", "export"): (1.0, 2.0),
        ("tools", "torch"): ("2.14.1", "2.14.2"),
        ("tools", "onnx"): (None, "1.23.2"),
    }


def test_a_recipe_is_compared_field_by_field_and_files_by_size_and_content() -> None:
    first = manifest(1)
    recipe = first.recipe.model_copy(update={"description": "Another.", "opset": 18})
    files = (ReleaseFile(path="onnx/model.onnx", sha256="2" * 64, size_bytes=1200),)

    found = changes_of(first, manifest(2, recipe=recipe, files=files))

    assert found == {
        ("recipe", "description"): ("A linear classifier.", "Another."),
        ("recipe", "opset"): (first.recipe.opset, 18),
        ("files", "onnx/model.onnx"): (
            "1,000 bytes, sha256 111111111111",
            "1,200 bytes, sha256 222222222222",
        ),
    }


def test_a_format_that_is_only_in_one_of_them_is_on_one_side_alone() -> None:
    found = changes_of(manifest(1, formats=()), manifest(2))

    assert found[("formats", "onnx size_bytes")] == (None, 1000)
    assert all(before is None for before, _ in found.values())


@pytest.mark.parametrize(
    ("before", "after", "factor"),
    [(2, 3, 1.5), (0, 3, None), (None, 3, None), ("a", "b", None), (False, True, None)],
)
def test_a_factor_is_given_where_it_means_something(
    before: Any, after: Any, factor: float | None
) -> None:
    assert Change(topic="parity", name="x", before=before, after=after).factor == factor


def test_a_difference_survives_json_with_infinity_in_it() -> None:
    worse = SPREAD | {"budget": float("inf")}
    after = manifest(2, formats=(onnx_format({"Gemm": 2, "Relu": 1}, 17, worse),))
    found = difference(manifest(1), after)

    text = found.model_dump_json()

    assert '"Infinity"' in text
    assert [row["2"] for row in difference_rows(found)] == ["inf", "inf"]
