"""Every fault that verification is there to find, planted in a small model, and its words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.domain.errors import ReleaseError, SignatureMismatchError, VerificationError
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.steps.verify_onnx import VerifyOnnxReply, VerifyOnnxRequest, verify_onnx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10


def _recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "name": "small",
        "description": "One matrix.",
        "licence": "none",
        "source": {
            "kind": "train-sklearn",
            "dataset": "iris",
            "steps": [{"estimator": "sklearn.linear_model.LinearRegression"}],
        },
        "signature": {
            "inputs": [
                {
                    "name": "x",
                    "dtype": "float32",
                    "shape": ["batch", 4],
                    "domain": {"kind": "range", "low": -1, "high": 1},
                }
            ],
            "outputs": [
                {"name": "y", "dtype": "float32", "shape": ["batch", 3]},
                {"name": "z", "dtype": "float32", "shape": ["batch", 3]},
            ],
        },
    }
    return Recipe.model_validate(fields | changes)


def _info(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list[onnx.NodeProto] | None = None,
    weights: dict[str, np.ndarray[Any, Any]] | None = None,
    *,
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
    opsets: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """Return the sound model ``y = x @ w; z = relu(y)``, or what is asked for in its place."""
    nodes = nodes or [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="first"),
        helper.make_node("Relu", ["y"], ["z"], name="second"),
    ]
    weights = {"w": _WEIGHTS} | (weights or {})
    graph = helper.make_graph(
        nodes,
        "small",
        inputs or [_info("x", ["batch", 4])],
        outputs or [_info("y", ["batch", 3]), _info("z", ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset_imports = [helper.make_opsetid(*each) for each in (opsets or {"": 17}).items()]
    return helper.make_model(graph, opset_imports=opset_imports, ir_version=8)


@pytest.fixture
def verified(children: Children, tmp_path: Path) -> Callable[..., VerifyOnnxReply]:
    """Write a model (or bare bytes) and verify it in a child process."""

    def verify(model: onnx.ModelProto | bytes, recipe: Recipe | None = None) -> VerifyOnnxReply:
        content = model if isinstance(model, bytes) else model.SerializeToString()
        (tmp_path / "model.onnx").write_bytes(content)
        request = VerifyOnnxRequest(recipe=recipe or _recipe(), model=tmp_path)
        call = Call("verify", "small", Family.ONNXRUNTIME, fails_as=ReleaseError)
        return children.call(verify_onnx, request, call).value

    return verify


def test_a_sound_model_passes_and_tells_what_it_is(verified: Callable[..., Any]) -> None:
    reply = verified(_model())

    assert reply.facts.opsets == {"ai.onnx": 17}
    assert reply.facts.operators == {"MatMul": 1, "Relu": 1}
    assert reply.facts.parameters == 12
    assert not reply.facts.external_data
    assert reply.checks[0] == "onnx.checker full_check, with strict shape inference"
    assert (
        "ran at batch 1, 2, 3 and 8 with graph optimisation all, at 1 and 3 with it off"
    ) in reply.checks
    assert reply.notes == ()


def test_a_sound_model_passes_with_its_weights_beside_it(
    verified: Callable[..., Any], tmp_path: Path
) -> None:
    reply = verified(_with_external_data(_model(), tmp_path))

    assert reply.facts.external_data
    assert "external data complete: model.onnx.data" in reply.checks


def test_a_file_that_its_runtimes_can_read_is_told_so(verified: Callable[..., Any]) -> None:
    serve = [{"kind": "onnxruntime", "at_least": "1.17", "provider": "cuda"}]

    reply = verified(_model(), _recipe(serve=serve))

    assert "fits onnxruntime 1.17: opset 17 of at most 20, IR version 8 of at most 9" in (
        reply.checks
    )
    assert reply.notes[0].startswith("execution provider cuda: not run here (device: cpu)")
    assert reply.facts.canonical is not None


def test_a_file_that_a_runtime_cannot_read_is_refused(verified: Callable[..., Any]) -> None:
    model = _model()
    model.ir_version = 11

    with pytest.raises(VerificationError) as caught:
        verified(model, _recipe(serve=[{"kind": "triton", "release": "24.08"}]))

    assert str(caught.value) == (
        "small: verify: does not fit 'serve': triton 24.08 (onnxruntime 1.18) reads IR version 10 "
        "at most (got 11, which needs onnxruntime >= 1.23). Use another converter, or declare a "
        "newer runtime."
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "model.onnx is empty", id="empty"),
        pytest.param(b"<!DOCTYPE html><p>404</p>", "an HTML or XML page", id="html"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer", id="lfs"),
        pytest.param(_model().SerializeToString()[:100], "or is cut short", id="truncated"),
        pytest.param(bytes(range(256)) * 4, "is no ONNX model", id="noise"),
        pytest.param(b"\x08\x08", "holds no graph", id="no-graph"),
    ],
)
def test_a_file_that_is_no_model_is_refused(
    verified: Callable[..., Any], content: bytes, words: str
) -> None:
    with pytest.raises(VerificationError, match=words):
        verified(content)


def test_a_model_that_is_not_there_is_refused(children: Children, tmp_path: Path) -> None:
    request = VerifyOnnxRequest(recipe=_recipe(), model=tmp_path)
    call = Call("verify", "small", Family.ONNXRUNTIME, fails_as=ReleaseError)

    with pytest.raises(VerificationError, match=r"^small: verify: model.onnx is not there"):
        children.call(verify_onnx, request, call)


def test_a_shape_that_contradicts_the_graph_is_refused(verified: Callable[..., Any]) -> None:
    outputs = [_info("y", ["batch", 3]), _info("z", ["batch", 5])]
    recipe = _recipe()

    with pytest.raises(VerificationError, match=r"onnx\.checker refuses") as caught:
        verified(_model(outputs=outputs), recipe)

    assert "second" in str(caught.value)


# --- signature -----------------------------------------------------------------------------


def test_another_dtype_is_refused(verified: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Cast", ["y"], ["z"], to=TensorProto.DOUBLE),
    ]
    outputs = [_info("y", ["batch", 3]), _info("z", ["batch", 3], TensorProto.DOUBLE)]

    with pytest.raises(SignatureMismatchError) as caught:
        verified(_model(nodes, outputs=outputs))

    assert "output 'z' is not as declared" in str(caught.value)
    assert "(expected float32[batch, 3], got float64[batch, 3])" in str(caught.value)


def test_swapped_outputs_are_refused(verified: Callable[..., Any]) -> None:
    outputs = [_info("z", ["batch", 3]), _info("y", ["batch", 3])]

    with pytest.raises(SignatureMismatchError, match=r"\(expected y, z, got z, y\)"):
        verified(_model(outputs=outputs))


def test_another_input_name_is_refused(verified: Callable[..., Any]) -> None:
    model = _model()
    model.graph.input[0].name = model.graph.node[0].input[0] = "features"

    with pytest.raises(SignatureMismatchError, match=r"inputs' names .*expected x, got features"):
        verified(model)


def test_a_declared_batch_of_one_is_refused(verified: Callable[..., Any]) -> None:
    outputs = [_info("y", [1, 3]), _info("z", [1, 3])]

    with pytest.raises(SignatureMismatchError) as caught:
        verified(_model(inputs=[_info("x", [1, 4])], outputs=outputs))

    assert "input 'x' is not as declared (expected float32[batch, 4], got float32[1, 4])" in str(
        caught.value
    )
    assert "Export with axis 0 dynamic, under the name 'batch'" in str(caught.value)


def test_a_dynamic_axis_of_another_name_is_refused(verified: Callable[..., Any]) -> None:
    outputs = [_info("y", ["n", 3]), _info("z", ["n", 3])]

    with pytest.raises(SignatureMismatchError, match="Let the converter call axis 0 'batch'"):
        verified(_model(inputs=[_info("x", ["n", 4])], outputs=outputs))


def test_a_batch_that_is_fixed_inside_is_found_by_running(verified: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw"]),
        helper.make_node("Reshape", ["raw", "one"], ["y"], name="fixed"),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    weights = {"one": np.array([1, 3], np.int64)}

    with pytest.raises(SignatureMismatchError) as caught:
        verified(_model(nodes, weights))

    assert "batch 3, graph optimisation off: does not run, though batch 1 does" in str(caught.value)
    assert "fixed" in str(caught.value)


def test_an_answer_of_another_batch_is_found_by_running(verified: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Gather", ["y", "first"], ["z"]),
    ]

    with pytest.raises(SignatureMismatchError) as caught:
        verified(_model(nodes, {"first": np.array([0], np.int64)}))

    assert "output 'z'" in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_list_among_the_outputs_is_refused(verified: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("SequenceConstruct", ["y"], ["z"]),
    ]
    made_of = helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", 3])
    sequence = helper.make_value_info("z", helper.make_sequence_type_proto(made_of))

    with pytest.raises(SignatureMismatchError, match="output 'z' is a sequence_type"):
        verified(_model(nodes, outputs=[_info("y", ["batch", 3]), sequence]))


# --- external data -------------------------------------------------------------------------


def _with_external_data(
    model: onnx.ModelProto, folder: Path | None, location: str = "model.onnx.data"
) -> onnx.ModelProto:
    """Move the model's weights to a file, which is written only where a folder is given."""
    for tensor in model.graph.initializer:
        content = numpy_helper.to_array(tensor).tobytes()
        if folder:
            (folder / location).write_bytes(content)
        onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=len(content))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    return model


def test_missing_external_data_are_named(verified: Callable[..., Any]) -> None:
    with pytest.raises(VerificationError, match=r"external data of 'w' are missing .*\.onnx\.data"):
        verified(_with_external_data(_model(), None))


def test_external_data_that_are_cut_short_are_found(
    verified: Callable[..., Any], tmp_path: Path
) -> None:
    model = _with_external_data(_model(), tmp_path)
    (tmp_path / "model.onnx.data").write_bytes(b"\0" * 40)

    with pytest.raises(VerificationError, match=r"cut short .expected at least 48 bytes, got 40"):
        verified(model)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "", "..\\x"])
def test_external_data_outside_the_folder_are_refused(
    verified: Callable[..., Any], tmp_path: Path, location: str
) -> None:
    (tmp_path.parent / "secret").write_bytes(_WEIGHTS.tobytes())

    with pytest.raises(VerificationError, match="external data of 'w' lie outside"):
        verified(_with_external_data(_model(), None, location))


# --- operators -----------------------------------------------------------------------------


def test_another_opset_is_refused(verified: Callable[..., Any]) -> None:
    with pytest.raises(VerificationError, match=r"expected ai.onnx 17, got ai.onnx 18"):
        verified(_model(opsets={"": 18}))


def test_an_operator_of_a_foreign_domain_is_refused(verified: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Gelu", ["y"], ["z"], name="activation", domain="com.microsoft"),
    ]

    with pytest.raises(VerificationError) as caught:
        verified(_model(nodes, opsets={"": 17, "com.microsoft": 1}))

    assert "node Gelu 'activation' is of the domain 'com.microsoft'" in str(caught.value)


def test_an_operator_that_the_runtime_lacks_is_told_in_its_words(
    verified: Callable[..., Any],
) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Cast", ["y"], ["low"], to=TensorProto.INT16),
        helper.make_node("Relu", ["low"], ["high"], name="odd"),
        helper.make_node("Cast", ["high"], ["z"], to=TensorProto.FLOAT),
    ]

    with pytest.raises(VerificationError) as caught:
        verified(_model(nodes))

    assert "refuses the model (graph optimisation off)" in str(caught.value)
    assert "Relu" in str(caught.value)


# --- training mode -------------------------------------------------------------------------

_STATISTICS = {name: np.ones(3, np.float32) for name in ("scale", "bias", "mean", "variance")}


def test_a_batch_normalization_in_training_mode_is_refused(verified: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node(
            "BatchNormalization",
            ["y", *_STATISTICS],
            ["z", "new_mean", "new_variance"],
            name="bn1",
            training_mode=1,
        ),
    ]

    with pytest.raises(VerificationError) as caught:
        verified(_model(nodes, _STATISTICS))

    assert "node BatchNormalization 'bn1' is in training mode" in str(caught.value)
    assert "model.eval()" in str(caught.value)


@pytest.mark.parametrize("kept_as", ["initializer", "constant"])
def test_a_dropout_in_training_mode_is_refused(verified: Callable[..., Any], kept_as: str) -> None:
    ratio, on = np.array(0.5, np.float32), np.array(True)  # noqa: FBT003 - a tensor
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Dropout", ["y", "ratio", "on"], ["z"], name="drop"),
    ]
    weights = {"ratio": ratio, "on": on}
    if kept_as == "constant":
        value = numpy_helper.from_array(weights.pop("on"))
        nodes.insert(0, helper.make_node("Constant", [], ["on"], value=value))

    with pytest.raises(VerificationError, match=r"Dropout 'drop' .*got training_mode=true"):
        verified(_model(nodes, weights))


def test_a_dropout_that_is_switched_off_passes(verified: Callable[..., Any]) -> None:
    weights = {"ratio": np.array(0.5, np.float32), "on": np.array(False)}  # noqa: FBT003
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Dropout", ["y", "ratio", "on"], ["z"]),
    ]

    assert "no node in training mode" in verified(_model(nodes, weights)).checks
