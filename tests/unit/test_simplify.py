"""The simplifier does what its passes say, to weights outside the file too, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.converters import onnx_weights
from tasks.runners.onnxruntime_runner import open_session, run_session
from tasks.steps import simplify as step
from tasks.steps.simplify import SimplifyRequest, simplify

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.domain.passes import SimplifierPass

EVERY: tuple[SimplifierPass, ...] = (
    "remove-unused",
    "eliminate-identity",
    "fold-constants",
    "common-subexpressions",
    "deduplicate-initializers",
)


def _write(folder: Path, *, outside: bool = False) -> None:
    """Write ``y = relu(x + one + one) + relu(x + one + one)``, the long way round."""
    big = np.random.default_rng(0).normal(size=(1, 512)).astype(np.float32)
    weights = {"one": np.ones(1, "f4"), "two": np.ones(1, "f4"), "big": big, "same": big}
    nodes = [
        helper.make_node("Add", ["one", "two"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["a"]),
        helper.make_node("Add", ["x", "sum"], ["b"]),
        helper.make_node("Identity", ["a"], ["c"]),
        helper.make_node("Mul", ["c", "big"], ["d"]),
        helper.make_node("Mul", ["b", "same"], ["e"]),
        helper.make_node("Relu", ["a"], ["unused"]),
        helper.make_node("Add", ["d", "e"], ["y"]),
    ]
    side = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["batch", 512]) for each in "xy"]
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "long", side[:1], side[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(
        model,
        folder / "model.onnx",
        save_as_external_data=outside,
        location="model.onnx.data",
        size_threshold=100,
    )


def _answer(folder: Path) -> NDArray[np.generic]:
    x = np.random.default_rng(1).normal(size=(3, 512)).astype(np.float32)
    return run_session(open_session("test", folder / "model.onnx"), {"x": x})["y"]


@pytest.mark.parametrize("outside", [False, True], ids=["one-file", "weights-outside"])
def test_the_graph_is_shorter_and_answers_as_before(tmp_path: Path, *, outside: bool) -> None:
    _write(tmp_path, outside=outside)
    before = _answer(tmp_path)

    reply = simplify(SimplifyRequest(folder=tmp_path, passes=EVERY))

    assert [(each.name, each.changed) for each in reply.passes] == [(n, True) for n in EVERY]
    model = onnx.load(tmp_path / "model.onnx")
    assert sorted(node.op_type for node in model.graph.node) == ["Add", "Add", "Mul", "Mul"]
    np.testing.assert_array_equal(_answer(tmp_path), before)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_weights_above_the_limit_of_one_file_stay_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_weights, "ONE_FILE_BYTES", 1000)
    _write(tmp_path, outside=True)
    before = _answer(tmp_path)

    simplify(SimplifyRequest(folder=tmp_path, passes=("eliminate-identity",)))

    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    np.testing.assert_array_equal(_answer(tmp_path), before)


def test_where_nothing_changes_the_file_stays_as_it_is(tmp_path: Path) -> None:
    _write(tmp_path)
    simplify(SimplifyRequest(folder=tmp_path, passes=EVERY))
    before = (tmp_path / "model.onnx").read_bytes()

    reply = simplify(SimplifyRequest(folder=tmp_path, passes=("eliminate-identity",)))

    assert [each.changed for each in reply.passes] == [False]
    assert (tmp_path / "model.onnx").read_bytes() == before


def test_a_pass_that_raises_is_left_out_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(_model: object) -> None:
        raise MemoryError("weights are outside")

    _write(tmp_path)
    usual = step._passes
    monkeypatch.setattr(
        step, "_passes", lambda name: [raising] if name == "fold-constants" else usual(name)
    )

    reply = simplify(SimplifyRequest(folder=tmp_path, passes=EVERY))

    first = next(each for each in reply.passes if each.name == "fold-constants")
    rest = [each for each in reply.passes if each is not first]
    assert first.error == "it raised MemoryError: weights are outside"
    assert not first.may_matter
    assert all(each.changed for each in rest)
