"""Rows beside the splits of trees: they stand where rounding decides, and catch a rounded split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.arrays import load_arrays
from tasks.converters import ConvertRequest
from tasks.converters.skl2onnx_converter import convert
from tasks.domain.artifact import ModelFormat
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Family
from tasks.sources import HELD_OUT, SOURCES, AcquireRequest
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.compare import CompareRequest, compare
from tasks.steps.probes import ProbesRequest, make_probes
from tasks.steps.split_rows import BESIDE_SPLITS, SplitRowsRequest, make_split_rows
from tasks.steps.splits import from_keys, last_below, to_keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.domain.parity import ParityReport
    from tasks.domain.release import ProbeInfo
    from tasks.domain.value import Value
    from tasks.isolation import Children

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def recipe(*steps: str, **params: Any) -> Recipe:
    *before, last = [{"estimator": f"sklearn.{each}"} for each in steps]
    values = {"name": "value", "dtype": "float32", "shape": ["batch", 1]}
    domain = {"kind": "range", "low": -0.2, "high": 0.2}
    return Recipe.model_validate(
        {
            "name": "trees",
            "description": "Trees.",
            "licence": "none",
            "source": {
                "kind": "train-sklearn",
                "dataset": "diabetes",
                "steps": [*before, last | {"params": params}],
            },
            "signature": {
                "inputs": [
                    {"name": "x", "dtype": "float32", "shape": ["batch", 10], "domain": domain}
                ],
                "outputs": [values],
            },
            "opset": 13,
            "parity": {"profile": "trees", "real": {"kind": "held-out"}},
        }
    )


class Bench:
    """One model, trained and converted, and the rows beside its splits."""

    def __init__(self, children: Children, folder: Path, wanted: Recipe) -> None:
        self.children, self.folder, self.recipe = children, folder, wanted
        for name in ("source", "probes", "onnx", "reference"):
            (folder / name).mkdir()
        self.call(
            SOURCES["train-sklearn"].acquire,
            AcquireRequest(recipe=wanted, downloads=(), folder=folder / "source"),
        )
        held_out = folder / "source" / HELD_OUT
        make_probes(
            ProbesRequest(recipe=wanted, pictures=(), held_out=held_out, folder=folder / "probes")
        )
        request = SplitRowsRequest(
            recipe=wanted,
            model=folder / "source",
            probes=folder / "probes",
            names=("random", "held-out"),
        )
        self.probe: ProbeInfo | None = self.call(make_split_rows, request).probe

    def call(
        self, function: Callable[..., Any], request: Value, family: Family = Family.SKLEARN
    ) -> Any:
        return self.children.call(function, request, Call("test", "trees", family)).value

    def answers(self, format_: ModelFormat, model: str, name: str) -> None:
        request = AnswerRequest(
            recipe=self.recipe,
            format=format_,
            model=self.folder / model,
            probes=self.folder / "probes",
            names=(BESIDE_SPLITS,),
            device="cpu",
            folder=self.folder / name,
        )
        sklearn = format_ is ModelFormat.SKLEARN
        self.call(answer, request, Family.SKLEARN if sklearn else Family.ONNXRUNTIME)

    def report(self, answers: str) -> ParityReport:
        assert self.probe
        return compare(
            CompareRequest(
                recipe=self.recipe,
                candidate=ModelFormat.ONNX,
                runtime="onnxruntime",
                probes=(self.probe,),
                reference=self.folder / "reference",
                answers=self.folder / answers,
            )
        )

    def prove(self) -> None:
        self.answers(ModelFormat.SKLEARN, "source", "reference")
        request = ConvertRequest(
            recipe=self.recipe, source=self.folder / "source", folder=self.folder / "onnx"
        )
        self.call(convert, request)


def round_splits(path: Path, target: Path) -> None:
    """Move each split of the tree to the next float above, as rounding to nearest does to half."""
    model = onnx.load(path)
    for node in model.graph.node:
        for each in node.attribute:
            if each.name == "nodes_values":
                up = np.nextafter(np.asarray(each.floats, np.float32), np.float32(np.inf))
                each.floats[:] = up.tolist()
    onnx.save(model, target)


@given(FLOATS, FLOATS)
def test_keys_are_in_the_floats_order_and_lead_back(one: float, two: float) -> None:
    values = np.asarray([one, two], np.float32)

    keys = to_keys(values)

    assert (keys[0] < keys[1]) == (one < two)
    assert (from_keys(keys, values.dtype) == values).all()
    assert from_keys(keys + 1, values.dtype)[0] == np.nextafter(values[0], np.float32(np.inf))


def test_the_last_float_below_a_double_is_found() -> None:
    thresholds = np.asarray([0.1, -0.1, 1e-50, 7.0])
    low, high = (np.full(4, end, np.float32) for end in (-10, 10))

    left = last_below(low, high, lambda values: values.astype(np.float64) <= thresholds)

    assert (left <= thresholds).all()
    assert (np.nextafter(left, np.float32(np.inf)) > thresholds).all()
    assert left[3] == 7


def test_good_trees_pass_beside_their_splits_and_trees_rounded_up_fail(
    children: Children, tmp_path: Path
) -> None:
    wanted = recipe("ensemble.GradientBoostingRegressor", n_estimators=20)
    bench = Bench(children, tmp_path, wanted)
    bench.prove()
    for name in ("rounded", "good-answers", "rounded-answers"):
        (tmp_path / name).mkdir()
    round_splits(tmp_path / "onnx" / "model.onnx", tmp_path / "rounded" / "model.onnx")

    bench.answers(ModelFormat.ONNX, "onnx", "good-answers")
    bench.answers(ModelFormat.ONNX, "rounded", "rounded-answers")

    assert bench.probe
    assert bench.probe.rows == 3 * 64
    assert "at splits of its trees" in bench.probe.about
    assert bench.report("good-answers").passed
    assert not bench.report("rounded-answers").passed


def test_each_place_lies_between_two_answers(children: Children, tmp_path: Path) -> None:
    bench = Bench(children, tmp_path, recipe("tree.DecisionTreeRegressor", max_depth=5))

    bench.answers(ModelFormat.SKLEARN, "source", "reference")

    below, left, right = np.split(load_arrays(tmp_path / "probes" / f"{BESIDE_SPLITS}.npz")["x"], 3)
    answers = load_arrays(tmp_path / "reference" / f"{BESIDE_SPLITS}.npz")["value"].astype(float)
    lower, upper = np.split(answers, 3)[1:]
    assert ((left != right).sum(axis=1) == 1).all()
    assert (np.nextafter(left, right) == right).all()
    assert (np.nextafter(left, below) == below).all()
    assert np.count_nonzero(lower != upper) > 20


@pytest.mark.parametrize(
    ("before", "way"),
    [("preprocessing.MinMaxScaler", "beside splits"), ("decomposition.PCA", "answer turns")],
)
def test_places_are_found_through_the_steps_before_the_trees(
    children: Children, tmp_path: Path, before: str, way: str
) -> None:
    bench = Bench(children, tmp_path, recipe(before, "tree.DecisionTreeRegressor", max_depth=4))

    bench.answers(ModelFormat.SKLEARN, "source", "reference")

    assert bench.probe
    assert way in bench.probe.about
    answers = load_arrays(tmp_path / "reference" / f"{BESIDE_SPLITS}.npz")["value"].astype(float)
    lower, upper = np.split(answers, 3)[1:]
    assert np.count_nonzero(lower != upper) > 20


def test_a_model_without_trees_has_no_such_rows(children: Children, tmp_path: Path) -> None:
    bench = Bench(children, tmp_path, recipe("linear_model.Ridge"))

    assert bench.probe is None
    assert not (tmp_path / "probes" / f"{BESIDE_SPLITS}.npz").exists()
