"""ONNX Runtime runs where it was asked to run, and says so when it cannot."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.domain.errors import ConfigurationError, VerificationError
from tasks.domain.recipe import Recipe
from tasks.runners.onnxruntime_runner import (
    OnnxruntimeRunner,
    check_available,
    check_chosen,
    thread_count,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.runners import Device

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"


def _recipe(dtype: str = "float32", shape: tuple[int, ...] = (4,)) -> Recipe:
    domain = {"kind": "choice", "values": ["a", "b"] if dtype == "string" else [0, 1]}
    tensor = {"dtype": dtype, "shape": ["batch", *shape]}
    return Recipe.model_validate(
        {
            "name": "small",
            "description": "One operator.",
            "licence": "none",
            "source": {
                "kind": "train-sklearn",
                "dataset": "iris",
                "steps": [{"estimator": "sklearn.linear_model.LinearRegression"}],
            },
            "signature": {
                "inputs": [{"name": "x", "domain": domain} | tensor],
                "outputs": [{"name": "y"} | tensor],
            },
        }
    )


def _write(
    folder: Path, node: onnx.NodeProto, kind: int, shape: list[int | str], **weights: Any
) -> None:
    """Write a model of one node from ``x`` to ``y``, its weights beside it."""
    tensors = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph([node], "small", tensors[:1], tensors[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx", save_as_external_data=bool(weights),
              location="model.onnx.data", size_threshold=0)  # fmt: skip


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        pytest.param("cpu", [_CPU], _CPU, id="cpu-build"),
        pytest.param("cpu", ["AzureExecutionProvider", _CPU], _CPU, id="cpu-is-not-first"),
        pytest.param("cuda", ["TensorrtExecutionProvider", _CUDA, _CPU], _CUDA, id="gpu-build"),
    ],
)
def test_the_provider_is_the_one_asked_for(
    device: Device, available: list[str], expected: str
) -> None:
    assert check_available(device, available) == expected


def test_a_build_without_cuda_names_what_it_has_and_what_to_install() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_available("cuda", ["AzureExecutionProvider", _CPU])

    assert "got AzureExecutionProvider, CPUExecutionProvider" in str(caught.value)
    assert "Install onnxruntime-gpu in place of onnxruntime" in str(caught.value)


@pytest.mark.parametrize("chosen", [[_CPU], [], ["TensorrtExecutionProvider", _CUDA]])
def test_a_session_that_fell_back_in_silence_is_refused(chosen: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=f"expected {_CUDA} first, got"):
        check_chosen("cuda", chosen)


@pytest.mark.parametrize(("device", "chosen"), [("cpu", [_CPU]), ("cuda", [_CUDA, _CPU])])
def test_a_session_where_it_was_asked_to_run_is_let_through(
    device: Device, chosen: list[str]
) -> None:
    check_chosen(device, chosen)

    assert chosen


def test_it_runs_with_weights_beside_the_model(tmp_path: Path) -> None:
    weights = np.eye(4, dtype=np.float32) * 2
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    _write(tmp_path, node, TensorProto.FLOAT, ["batch", 4], w=weights)

    runner = OnnxruntimeRunner.load(_recipe(), tmp_path, "cpu")
    answers = runner.run({"x": np.ones((3, 4), np.float32)})

    assert (tmp_path / "model.onnx.data").stat().st_size == weights.nbytes
    np.testing.assert_array_equal(answers["y"], np.full((3, 4), 2, np.float32))
    assert str(runner.signature()) == "x float32[batch, 4] -> y float32[batch, 4]"
    assert runner.runtime.startswith(f"onnxruntime {onnxruntime.__version__} {_CPU} (")
    assert 1 <= thread_count() <= 8


@pytest.mark.parametrize("optimisation", ["all", "off"])
def test_strings_come_and_leave_as_numpy_text(tmp_path: Path, optimisation: Any) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    _write(tmp_path, node, TensorProto.STRING, ["batch"])
    words = np.array(["", "naïve", "東京"])

    runner = OnnxruntimeRunner.load(_recipe("string", ()), tmp_path, "cpu", optimisation)
    answers = runner.run({"x": words})

    assert answers["y"].dtype.kind == "U"
    np.testing.assert_array_equal(answers["y"], words)


def test_rows_of_another_width_are_refused_in_words(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    _write(tmp_path, node, TensorProto.FLOAT, ["batch", 4], w=np.eye(4, dtype=np.float32))
    runner = OnnxruntimeRunner.load(_recipe(), tmp_path, "cpu")

    with pytest.raises(VerificationError, match=r"does not answer x float32\[3, 5\]"):
        runner.run({"x": np.ones((3, 5), np.float32)})


def test_an_output_that_is_not_there_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    _write(tmp_path, node, TensorProto.FLOAT, ["batch", 4])
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.output[0].name = model.graph.node[0].output[0] = "score"
    onnx.save(model, tmp_path / "model.onnx")
    runner = OnnxruntimeRunner.load(_recipe(), tmp_path, "cpu")

    with pytest.raises(VerificationError, match=r"no output 'y' \(expected y, got score\)"):
        runner.run({"x": np.ones((1, 4), np.float32)})


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"small: model\.onnx is not in its folder"):
        OnnxruntimeRunner.load(_recipe(), tmp_path, "cpu")


@pytest.mark.skipif(
    _CUDA in onnxruntime.get_available_providers(), reason="this build of onnxruntime has CUDA"
)
def test_cuda_without_the_gpu_build_never_becomes_cpu(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    _write(tmp_path, node, TensorProto.FLOAT, ["batch", 4])

    with pytest.raises(ConfigurationError, match="device 'cuda' needs CUDAExecutionProvider"):
        OnnxruntimeRunner.load(_recipe(), tmp_path, "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU on this machine")
def test_cuda_answers_like_the_cpu(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 4)).astype(np.float32)
    _write(tmp_path, node, TensorProto.FLOAT, ["batch", 4], w=weights)
    rows: Any = {"x": rng.normal(size=(8, 4)).astype(np.float32)}
    on_cpu: Any = OnnxruntimeRunner.load(_recipe(), tmp_path, "cpu").run(rows)

    runner = OnnxruntimeRunner.load(_recipe(), tmp_path, "cuda")
    answers: Any = runner.run(rows)

    assert _CUDA in runner.runtime
    np.testing.assert_allclose(answers["y"], on_cpu["y"], rtol=1e-5, atol=1e-6)
