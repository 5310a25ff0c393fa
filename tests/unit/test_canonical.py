"""The canonical digest sees what a model computes, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tasks.domain.errors import VerificationError
from tasks.domain.reproducibility import difference
from tasks.steps.canonical import FingerprintRequest, canonical_of, fingerprint
from tests.support.onnx_shuffle import rewritten, with_external_data

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.domain.artifact import Canonical
    from tasks.domain.reproducibility import Fingerprint

_UNARY = ("Relu", "Tanh", "Neg", "Abs")
_BINARY = ("Add", "Mul", "Sub", "MatMul")


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw graphs of 3 to 9 nodes with weights, constants, a branch with a body, and twins."""
    tensors = ["x"]
    nodes, weights = [], []
    for number in range(draw(st.integers(3, 9))):
        made = f"h{number}"
        kind = draw(st.sampled_from(["unary", "binary", "weight", "constant", "If", "function"]))
        left, right = (draw(st.sampled_from(tensors)) for _ in range(2))
        if kind == "unary":
            nodes.append(helper.make_node(draw(st.sampled_from(_UNARY)), [left], [made]))
        elif kind == "binary":
            nodes.append(helper.make_node(draw(st.sampled_from(_BINARY)), [left, right], [made]))
        elif kind == "weight":
            value = draw(st.integers(0, 3))
            weights.append(numpy_helper.from_array(_square(value), f"w{number}"))
            nodes.append(helper.make_node("Gemm", [left, f"w{number}"], [made], alpha=0.5))
        elif kind == "constant":
            tensor = numpy_helper.from_array(_square(draw(st.integers(0, 3))))
            nodes.append(helper.make_node("Constant", [], [f"c{number}"], value=tensor))
            nodes.append(helper.make_node("Add", [left, f"c{number}"], [made]))
        elif kind == "function":
            nodes.append(helper.make_node("Twice", [left], [made], domain="own"))
        else:
            nodes.append(_branch(left, right, made))
        tensors.append(made)
    nodes.append(helper.make_node("Identity", [tensors[-1]], ["y"]))
    return _model(nodes, weights)


def _square(value: float) -> np.ndarray[Any, Any]:
    return np.full((4, 4), value, np.float32)


def _branch(left: str, right: str, made: str) -> onnx.NodeProto:
    bodies = {}
    for side, operator in (("then_branch", "Relu"), ("else_branch", "Tanh")):
        inner = [
            helper.make_node(operator, [left], [f"{side}1"]),
            helper.make_node("Add", [f"{side}1", right], [f"{side}2"]),
        ]
        bodies[side] = helper.make_graph(inner, side, [], [_info(f"{side}2", [])])
    return helper.make_node("If", ["flag"], [made], **bodies)


def _info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "drawn",
        [_info("x", ["batch", 4]), _info("flag", [], TensorProto.BOOL)],
        [_info("y", ["batch", 4])],
        weights,
    )
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[twice], ir_version=8)


def _of(model: onnx.ModelProto, folder: Path | None = None) -> Canonical:
    from pathlib import Path

    return canonical_of("drawn", model, folder or Path())[0]


def _changed(model: onnx.ModelProto, change: Callable[[onnx.ModelProto], object]) -> Canonical:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    change(made)
    return _of(made)


def _fixed() -> onnx.ModelProto:
    weights = [
        numpy_helper.from_array(np.arange(16, dtype=np.float32).reshape(4, 4) + i, f"w{i}")
        for i in range(2)
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["left"]),
        helper.make_node("MatMul", ["x", "w1"], ["right"]),
        helper.make_node("Sub", ["left", "right"], ["h"]),
        _branch("h", "left", "i"),
        helper.make_node("LeakyRelu", ["i"], ["y"], alpha=0.1),
    ]
    return _model(nodes, weights)


# --- what leaves it alike ------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(model=models(), seed=st.integers(0, 2**32))
def test_names_orders_notes_and_encodings_leave_it_alike(model: onnx.ModelProto, seed: int) -> None:
    assert _of(rewritten(model, seed)) == _of(model)


def test_weights_beside_the_model_count_as_those_within(tmp_path: Path) -> None:
    model = _fixed()
    with_external_data(model, tmp_path)

    moved = fingerprint(FingerprintRequest(model=tmp_path))

    assert moved.canonical == _of(model)


def test_two_orders_of_independent_nodes_agree() -> None:
    def swap(model: onnx.ModelProto) -> None:
        first = onnx.NodeProto.FromString(model.graph.node[0].SerializeToString())
        model.graph.node[0].CopyFrom(model.graph.node[1])
        model.graph.node[1].CopyFrom(first)

    assert _changed(_fixed(), swap) == _of(_fixed())


# --- what changes it -----------------------------------------------------------------------


def _set_weight(model: onnx.ModelProto) -> None:
    values = numpy_helper.to_array(model.graph.initializer[1]).copy()
    values[3, 3] = np.nextafter(values[3, 3], np.float32(0))
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, "w1"))


def _swap_weights(model: onnx.ModelProto) -> None:
    first, second = model.graph.initializer
    first.name, second.name = second.name, first.name


def _reshape_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2, 8]


def _branch_body(model: onnx.ModelProto) -> None:
    body = next(each for each in model.graph.node[3].attribute if each.name == "then_branch")
    body.g.node[0].op_type = "Abs"


CHANGES = [
    pytest.param(_set_weight, {"weights"}, id="one-bit-of-a-weight"),
    pytest.param(_swap_weights, set(), id="two-weights-of-twin-branches-swapped"),
    pytest.param(_reshape_weight, {"weights", "graph"}, id="a-weight's-shape"),
    pytest.param(
        lambda model: setattr(model.graph.node[4].attribute[0], "f", 0.2),
        {"graph"},
        id="an-attribute",
    ),
    pytest.param(
        lambda model: model.graph.node[2].input.reverse(), set(), id="an-edge-between-twins"
    ),
    pytest.param(
        lambda model: model.graph.node[4].input.__setitem__(0, "h"), {"graph"}, id="an-edge"
    ),
    pytest.param(
        lambda model: setattr(model.graph.node[2], "op_type", "Add"), {"graph"}, id="an-operator"
    ),
    pytest.param(_branch_body, {"graph"}, id="a-node-within-a-branch"),
    pytest.param(
        lambda model: setattr(model.functions[0].node[0], "op_type", "Mul"),
        {"graph"},
        id="a-node-within-a-function",
    ),
    pytest.param(
        lambda model: setattr(model.opset_import[0], "version", 18), {"opsets"}, id="an-opset"
    ),
    pytest.param(
        lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 5),
        {"signature", "graph"},
        id="an-input's-shape",
    ),
    pytest.param(
        lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", "n"),
        {"signature"},
        id="a-free-axis'-name",
    ),
]


@pytest.mark.parametrize(("change", "parts"), CHANGES)
def test_a_change_shows_in_the_whole_and_in_its_part(
    change: Callable[[onnx.ModelProto], object], parts: set[str]
) -> None:
    before, after = _of(_fixed()), _changed(_fixed(), change)

    differ = {
        part
        for part in ("signature", "opsets", "graph", "weights")
        if getattr(before, part) != getattr(after, part)
    }
    assert after.sha256 != before.sha256
    assert differ == parts


@settings(max_examples=150, deadline=None)
@given(model=models(), data=st.data())
def test_any_other_operator_weight_or_missing_node_changes_it(
    model: onnx.ModelProto, data: st.DataObject
) -> None:
    def change(made: onnx.ModelProto) -> None:
        node = data.draw(st.sampled_from(list(made.graph.node)))
        if node.op_type == "Constant":
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(_square(7)))
        elif node.op_type == "If":
            node.attribute[0].g.node[0].op_type = "Sign"
        elif made.graph.initializer and data.draw(st.booleans()):
            tensor = data.draw(st.sampled_from(list(made.graph.initializer)))
            tensor.CopyFrom(numpy_helper.from_array(_square(9), tensor.name))
        else:
            node.op_type, node.domain = "Other", ""

    assert _changed(model, change).sha256 != _of(model).sha256


def test_one_node_used_twice_is_not_two_equal_nodes() -> None:
    def split(*sources: str) -> onnx.ModelProto:
        halves = [helper.make_node("Relu", ["x"], [name]) for name in ("a", "b")]
        uses = [helper.make_node("Tanh", [sources[0]], ["c"]),
                helper.make_node("Neg", [sources[1]], ["d"])]  # fmt: skip
        return _model([*halves, *uses, helper.make_node("Add", ["c", "d"], ["y"])], [])

    assert _of(split("a", "b")).sha256 == _of(split("b", "a")).sha256
    assert _of(split("a", "a")).sha256 != _of(split("a", "b")).sha256


def test_a_tensor_from_nowhere_is_refused() -> None:
    model = _model([helper.make_node("Relu", ["ghost"], ["y"])], [])

    with pytest.raises(VerificationError, match=r"^drawn: tensor 'ghost' is used and nothing"):
        _of(model)


# --- saying what differs -------------------------------------------------------------------


def _print_of(model: onnx.ModelProto, folder: Path) -> Fingerprint:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return fingerprint(FingerprintRequest(model=folder))


def _words(tmp_path: Path, change: Callable[[onnx.ModelProto], object]) -> tuple[str, ...]:
    before, after = _fixed(), _fixed()
    change(after)
    return difference(_print_of(before, tmp_path / "a"), _print_of(after, tmp_path / "b"))


def test_nothing_is_said_of_equal_models(tmp_path: Path) -> None:
    assert _words(tmp_path, lambda _model: None) == ()


def test_a_changed_weight_is_counted_and_named(tmp_path: Path) -> None:
    words = _words(tmp_path, _set_weight)

    assert words == ("weights differ: 1 of 2, first w1", "alike: opsets, signature, graph")


def test_a_changed_weight_is_found_under_another_name(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        _set_weight(model)
        model.graph.initializer[1].name = model.graph.node[1].input[1] = "renamed"

    assert _words(tmp_path, change)[0] == (
        "weights differ: 1 of 2 are not among the 2 before, first renamed"
    )


def test_swapped_weights_are_told_from_changed_ones(tmp_path: Path) -> None:
    words = _words(tmp_path, _swap_weights)

    assert words[0] == "equal weights stand at other places of the graph"
    assert words[1] == "alike: opsets, signature, graph, weights"


def test_changed_operators_and_opsets_are_counted(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[2].op_type = "Add"
        model.opset_import[0].version = 16

    words = _words(tmp_path, change)

    assert words[:2] == (
        "opsets differ: ai.onnx 17, then 16",
        "graph differs: Add 3, then 4; Sub 1, then 0",
    )


def test_a_changed_attribute_is_a_changed_graph(tmp_path: Path) -> None:
    words = _words(tmp_path, lambda model: setattr(model.graph.node[4].attribute[0], "f", 0.2))

    assert words[0] == "graph differs: the same operators, joined or set otherwise"
