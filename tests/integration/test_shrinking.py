"""An input that shows a planted fault is shrunk to the elements that do, within its budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.arrays import load_arrays
from tasks.bisecting import Asked, case_for
from tasks.domain.artifact import ModelFormat
from tasks.domain.diagnosis import Diagnosis, Way
from tasks.domain.recipe import Recipe
from tasks.reproducers import reproducer_files, with_shrunk
from tasks.shrinking import MOST_ROUNDS, MOST_ROWS, shrink
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.compare import CompareRequest, compare
from tasks.steps.probes import ProbesRequest, make_probes
from tests.integration.conftest import save

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnx import ModelProto, NodeProto

    from tasks.domain.parity import ParityReport
    from tasks.isolation import Children
    from tasks.shrinking import Shrinking

WIDTH = 24


def recipe(domain: dict[str, Any] | None = None, dtype: str = "float32") -> Recipe:
    shape = ["batch", WIDTH]
    ordinary = {"kind": "range", "low": -1, "high": 1}
    return Recipe.model_validate(
        {
            "name": "net",
            "description": "A sum.",
            "licence": "none",
            "source": {"kind": "train-torch", "dataset": "digits", "network": "mlp"},
            "signature": {
                "inputs": [
                    {"name": "x", "dtype": dtype, "shape": shape, "domain": domain or ordinary}
                ],
                "outputs": [{"name": "y", "dtype": "float32", "shape": shape}],
            },
        }
    )


def network(*nodes: NodeProto, **constants: Any) -> ModelProto:
    """Return a model of ``y = x / 2 + fault``, where nodes make the fault; none: it is good."""
    made = [helper.make_node("Mul", ["x", "half"], ["good"])]
    made += [*nodes, helper.make_node("Add", ["good", "fault"], ["y"])] if nodes else []
    if not nodes:
        made.append(helper.make_node("Identity", ["good"], ["y"]))
    tensors = {"half": np.float32(0.5)} | constants
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in "xy"
    ]
    graph = helper.make_graph(
        made, "net", ends[:1], ends[1:],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def wrong_where_all_are_above(bound: float, *places: int) -> ModelProto:
    """Return a model that adds 1 where each of these elements is above a bound."""
    return network(
        helper.make_node("Gather", ["x", "places"], ["chosen"], axis=1),
        helper.make_node("ReduceMin", ["chosen"], ["least"], axes=[1], keepdims=1),
        helper.make_node("Greater", ["least", "bound"], ["above"]),
        helper.make_node("Cast", ["above"], ["fault"], to=TensorProto.FLOAT),
        places=np.array(places),
        bound=np.float32(bound),
    )


def wrong_where_one_is(value: float) -> ModelProto:
    """Return a model that is wrong in an element that is exactly this value."""
    return network(
        helper.make_node("Equal", ["x", "value"], ["equal"]),
        helper.make_node("Cast", ["equal"], ["fault"], to=TensorProto.FLOAT),
        value=np.float32(value),
    )


def refuses_where_one_is_above(bound: float, place: int) -> ModelProto:
    """Return a model that looks up a place that is not there where an element is too large."""
    return network(
        helper.make_node("Gather", ["x", "places"], ["chosen"], axis=1),
        helper.make_node("Greater", ["chosen", "bound"], ["above"]),
        helper.make_node("Cast", ["above"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["fault"]),
        places=np.array([place]),
        bound=np.float32(bound),
        table=np.zeros(1, np.float32),
    )


class Bench:
    """A good network's answers to the probes, and a wrong one's."""

    def __init__(self, net: ModelProto, folder: Path, asked_of: Recipe) -> None:
        self.recipe, self.folder = asked_of, folder
        for name in ("inputs", "expected", "got", "scratch"):
            (folder / name).mkdir()
        self.right = self._way(save(network(), folder / "good"))
        self.wrong = self._way(save(net, folder / "wrong"))
        request = ProbesRequest(
            recipe=asked_of, pictures=(), held_out=None, folder=folder / "inputs"
        )
        self.probes = make_probes(request).probes
        self._answer(self.right, "expected", [each.name for each in self.probes])

    def _way(self, folder: Path) -> Way:
        return Way(stage="raw export", format=ModelFormat.ONNX, model=folder, optimisation="all")

    def _answer(self, way: Way, side: str, names: Sequence[str]) -> None:
        answer(
            AnswerRequest(
                recipe=self.recipe, format=way.format, model=way.model,
                probes=self.folder / "inputs", names=tuple(names), device="cpu",
                folder=self.folder / side,
            )
        )  # fmt: skip

    def report(self) -> ParityReport:
        self._answer(self.wrong, "got", [each.name for each in self.probes])
        return compare(
            CompareRequest(
                recipe=self.recipe, candidate=ModelFormat.ONNX, runtime="onnxruntime",
                probes=self.probes, reference=self.folder / "expected",
                answers=self.folder / "got",
            )
        )  # fmt: skip

    def failed(self) -> set[str]:
        return {each.probe for each in self.report().probes if not each.passed}

    def shrink(self, report: ParityReport | None, children: Children) -> Shrinking | None:
        asked = Asked(
            recipe=self.recipe, probes=self.probes, inputs=self.folder / "inputs",
            answers=self.folder / "expected",
        )  # fmt: skip
        scratch = self.folder / "scratch"
        case = case_for(self.wrong, report, asked, children, scratch)
        return shrink(case, self.right, self.wrong, asked.inputs, children, scratch)


def test_a_fault_of_one_element_is_shrunk_to_that_element(
    children: Children, tmp_path: Path
) -> None:
    bench = Bench(wrong_where_all_are_above(0.8, 2), tmp_path, recipe())

    found = bench.shrink(bench.report(), children)

    assert found is not None
    shrunk = found.shrunk
    assert (shrunk.differing, shrunk.elements, shrunk.minimal) == (1, WIDTH, True)
    assert shrunk.words.startswith(f"1 of {WIDTH} elements differ from a row that passes: x[2] = ")
    row = load_arrays(found.inputs)["x"][0]
    assert row[2] > 0.8
    assert not np.delete(row, 2).any()
    assert shrunk.rounds <= MOST_ROUNDS
    assert shrunk.rows <= MOST_ROUNDS * MOST_ROWS


def test_a_fault_of_several_elements_keeps_those_that_it_needs(
    children: Children, tmp_path: Path
) -> None:
    bench = Bench(wrong_where_all_are_above(0.3, 2, 21), tmp_path, recipe())

    found = bench.shrink(bench.report(), children)

    assert found is not None
    row = load_arrays(found.inputs)["x"][0]
    assert set(np.flatnonzero(row).tolist()) >= {2, 21}
    assert found.shrunk.minimal == (found.shrunk.differing == 2)
    assert found.shrunk.differing <= 6
    assert found.shrunk.rounds <= MOST_ROUNDS


def test_a_row_on_which_the_candidate_gives_no_answer_counts_as_failing(
    children: Children, tmp_path: Path
) -> None:
    bench = Bench(refuses_where_one_is_above(-0.5, 5), tmp_path, recipe())

    # it answers no probe that holds such a row, so there is nothing to compare
    found = bench.shrink(None, children)

    assert found is not None
    assert found.got is None
    assert "x[5] = " in found.shrunk.words
    assert found.shrunk.words.endswith("; the candidate does not answer it")


def test_a_good_candidate_has_nothing_to_shrink(children: Children, tmp_path: Path) -> None:
    bench = Bench(network(), tmp_path, recipe())

    assert bench.failed() == set()
    assert bench.shrink(bench.report(), children) is None


def test_the_search_sees_a_fault_that_no_other_probe_does(
    children: Children, tmp_path: Path
) -> None:
    # 0.5 is inside the domain, and drawn by chance once in many millions
    bench = Bench(wrong_where_one_is(0.5), tmp_path, recipe())
    report = bench.report()

    found = bench.shrink(report, children)

    assert {each.probe for each in report.probes if not each.passed} == {"search"}
    assert found is not None
    assert found.shrunk.differing == 1
    assert "= 0.5 (not 0.0)" in found.shrunk.words


@pytest.mark.parametrize("value", [0.3, 0.123])
def test_the_search_does_not_find_a_value_that_nothing_sets_apart(
    tmp_path: Path, value: float
) -> None:
    bench = Bench(wrong_where_one_is(value), tmp_path, recipe())

    assert bench.failed() == set()


def test_the_shrunk_input_is_kept_for_the_quarantine(children: Children, tmp_path: Path) -> None:
    bench = Bench(wrong_where_all_are_above(0.8, 2), tmp_path, recipe())
    found = bench.shrink(bench.report(), children)
    assert found is not None
    diagnosis = Diagnosis(
        candidate=ModelFormat.ONNX, converter="torch-dynamo", stage="raw export", verdicts=(),
        words="wrong",
    )  # fmt: skip

    diagnosis = with_shrunk(diagnosis, found, tmp_path / "run")

    files = reproducer_files((diagnosis,), tmp_path / "run")
    folder = "shrunk-onnx-torch-dynamo"
    assert set(files) == {
        f"{folder}/{name}" for name in ("inputs.npz", "expected.npz", "got.npz", "shrunk.txt")
    }
    expected, got = (load_arrays(files[f"{folder}/{side}.npz"]) for side in ("expected", "got"))
    assert np.allclose(got["y"].astype(float) - expected["y"].astype(float), 1)
