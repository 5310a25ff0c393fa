"""A file asks for no newer reader than it needs, and is otherwise the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.steps.canonical import canonical_of
from tasks.steps.ir_version import LowerIrRequest, lower_ir_version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _model(opset: int = 17, ir: int = 10) -> onnx.ModelProto:
    names = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in ("x", "y")]
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    node.metadata_props.add(key="torch.fx", value="linear")
    graph = helper.make_graph([node], "g", names[:1], names[1:], [weight])
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def _lowered(model: onnx.ModelProto, folder: Path) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    notes = lower_ir_version(LowerIrRequest(model=path)).notes
    return onnx.load(path), notes


@pytest.mark.parametrize(
    ("opset", "got", "least"), [(17, 10, 8), (13, 9, 7), (20, 11, 9), (21, 13, 10), (10, 12, 5)]
)
def test_it_becomes_what_the_opset_needs(tmp_path: Path, opset: int, got: int, least: int) -> None:
    before = _model(opset, got)
    del before.opset_import[1]

    after, notes = _lowered(before, tmp_path)

    assert after.ir_version == least
    assert notes == (f"IR version lowered from {got} to {least}, which is enough",)


def test_nothing_but_that_one_byte_changes_and_the_model_is_the_same(tmp_path: Path) -> None:
    before = _model()

    after, _ = _lowered(before, tmp_path)

    assert after.SerializeToString()[2:] == before.SerializeToString()[2:]
    assert canonical_of("a", after, tmp_path) == canonical_of("b", before, tmp_path)
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    (y,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": x})
    np.testing.assert_array_equal(y, x)


def _function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    made = helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 11)])
    model.functions.append(made)


def _overload(model: onnx.ModelProto) -> None:
    model.graph.node[0].overload = "second"


def _four_bits(model: onnx.ModelProto) -> None:
    tensor = helper.make_tensor("q", TensorProto.INT4, [2], [1, 2])
    model.graph.initializer.append(tensor)


def _unknown_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 27


@pytest.mark.parametrize(
    ("construct", "least"),
    [
        pytest.param(_function, 8, id="a-function"),
        pytest.param(_overload, 10, id="an-overload"),
        pytest.param(_four_bits, 10, id="a-dtype-of-four-bits"),
        pytest.param(_unknown_type, 12, id="a-dtype-newer-than-this-program"),
    ],
)
def test_it_stays_as_high_as_a_construct_needs(
    tmp_path: Path, construct: Callable[[Any], None], least: int
) -> None:
    model = _model(11, ir=12)
    del model.opset_import[1]
    construct(model)

    after, _ = _lowered(model, tmp_path)

    assert after.ir_version == least


def test_it_is_never_raised(tmp_path: Path) -> None:
    before = _model(21, ir=8)

    after, notes = _lowered(before, tmp_path)

    assert after == before
    assert notes == ()


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08"], ids=["empty", "text", "cut"])
def test_what_is_no_model_is_left_for_verification(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    reply = lower_ir_version(LowerIrRequest(model=path))

    assert reply.notes == ()
    assert path.read_bytes() == content


def test_a_file_that_is_not_there_is_left_for_verification(tmp_path: Path) -> None:
    assert lower_ir_version(LowerIrRequest(model=tmp_path / "model.onnx")).notes == ()
