"""Faults that the ONNX checker passes, and that parity must not.

A small convolutional network with random weights, biases and BatchNorm statistics stands for
the source; each fault is planted into a copy of its file, as a broken exporter would write it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.artifact import ModelFormat
from tasks.domain.recipe import Recipe
from tasks.runners.onnxruntime_runner import open_session, run_session
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.compare import CompareRequest, compare
from tasks.steps.probes import ProbesRequest, make_probes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.domain.parity import ParityReport
    from tasks.domain.release import ProbeInfo

CLASSES = 10

RECIPE = Recipe.model_validate(
    {
        "name": "net",
        "description": "A small network.",
        "licence": "none",
        "source": {"kind": "train-torch", "dataset": "digits", "network": "cnn"},
        "signature": {
            "inputs": [
                {
                    "name": "image",
                    "dtype": "float32",
                    "shape": ["batch", 3, 12, 12],
                    "layout": "NCHW",
                    "domain": {"kind": "range", "low": -2, "high": 2.5},
                }
            ],
            "outputs": [
                {"name": "logits", "dtype": "float32", "shape": ["batch", 10], "role": "logits"},
                {
                    "name": "probabilities",
                    "dtype": "float32",
                    "shape": ["batch", 10],
                    "role": "probabilities",
                },
                {"name": "label", "dtype": "int64", "shape": ["batch"], "role": "labels"},
            ],
        },
    }
)


def network() -> onnx.ModelProto:
    """Return Conv, BatchNorm, Relu, Conv, BatchNorm, Relu, MaxPool, Gemm, Softmax, ArgMax."""
    rng = np.random.default_rng(1)
    weights: dict[str, NDArray[Any]] = {}

    def weight(name: str, *shape: int, spread: float = 1.0, shift: float = 0.0) -> str:
        weights[name] = (shift + spread * rng.normal(size=shape)).astype(np.float32)
        return name

    nodes, last = [], "image"
    for stage, width in enumerate((3, 8), start=1):
        conv = [last, weight(f"w{stage}", 8, width, 3, 3, spread=0.3), weight(f"b{stage}", 8)]
        nodes += [helper.make_node("Conv", conv, [f"c{stage}"], f"conv{stage}", pads=[1] * 4)]
        norm = [weight(f"{part}{stage}", 8, spread=0.3, shift=1) for part in ("scale", "shift")]
        norm += [weight(f"mean{stage}", 8, spread=0.5), f"var{stage}"]
        weights[f"var{stage}"] = rng.uniform(0.5, 2, 8).astype(np.float32)
        nodes += [
            helper.make_node(
                "BatchNormalization", [f"c{stage}", *norm], [f"n{stage}"], f"norm{stage}"
            ),
            helper.make_node("Relu", [f"n{stage}"], [f"r{stage}"], f"relu{stage}"),
        ]
        last = f"r{stage}"
    gemm = ["flat", weight("w3", 288, CLASSES, spread=0.1), weight("b3", CLASSES)]
    nodes += [
        helper.make_node(
            "MaxPool", [last], ["pooled"], "pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", gemm, ["logits"], "gemm"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
        helper.make_node("ArgMax", ["logits"], ["label"], "argmax", axis=1, keepdims=0),
    ]
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    inputs, outputs = (
        [helper.make_tensor_value_info(each.name, kinds[each.dtype], each.shape) for each in side]
        for side in (RECIPE.signature.inputs, RECIPE.signature.outputs)
    )
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


# --- the tools of a broken exporter -------------------------------------------------------


def change(name: str, rule: Callable[[NDArray[Any]], NDArray[Any]], net: onnx.ModelProto) -> None:
    """Replace one weight by what ``rule`` makes of it."""
    stored = next(each for each in net.graph.initializer if each.name == name)
    array = rule(numpy_helper.to_array(stored).copy())
    stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def at(index: Any, value: Any) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def rule(array: NDArray[Any]) -> NDArray[Any]:
        array[index] = value(array[index]) if callable(value) else value
        return array

    return rule


def node(net: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(each for each in net.graph.node if each.name == name)


def insert(net: onnx.ModelProto, tensor: str, kind: str, *more: Any, **attributes: Any) -> None:
    """Put an operator in front of every reader of ``tensor``; ``more`` are its other inputs."""
    names = [f"more{i}" for i in range(len(more))]
    net.graph.initializer.extend(map(numpy_helper.from_array, map(np.asarray, more), names))
    for each in net.graph.node:
        each.input[:] = [f"{tensor}_" if name == tensor else name for name in each.input]
    made = helper.make_node(kind, [tensor, *names], [f"{tensor}_"], **attributes)
    places = [i for i, each in enumerate(net.graph.node) if tensor in each.output]
    net.graph.node.insert(places[0] + 1 if places else 0, made)


def before_output(net: onnx.ModelProto, output: str, kind: str, *more: Any, **fields: Any) -> None:
    """Let an operator change ``output`` after everybody else has read it."""
    for each in net.graph.node:
        for side in (each.input, each.output):
            side[:] = [f"{output}_" if name == output else name for name in side]
    names = [f"last{i}" for i in range(len(more))]
    net.graph.initializer.extend(map(numpy_helper.from_array, map(np.asarray, more), names))
    net.graph.node.append(helper.make_node(kind, [f"{output}_", *names], [output], **fields))


def weights_of_another_seed(net: onnx.ModelProto) -> None:
    for name in ("w1", "w2", "w3"):
        change(
            name, lambda w: np.random.default_rng(9).permutation(w.ravel()).reshape(w.shape), net
        )


def set_attribute(net: onnx.ModelProto, name: str, **attributes: Any) -> None:
    found = node(net, name)
    kept = [each for each in found.attribute if each.name not in attributes]
    del found.attribute[:]
    made = [helper.make_attribute(key, value) for key, value in attributes.items()]
    found.attribute.extend([*kept, *made])


def change_kind(net: onnx.ModelProto, name: str, kind: str) -> None:
    node(net, name).op_type = kind


def drop_output(net: onnx.ModelProto) -> None:
    del net.graph.output[1]


def name_another_output(net: onnx.ModelProto) -> None:
    net.graph.output.append(
        helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 288])
    )


def swap_outputs(net: onnx.ModelProto) -> None:
    swapped = {"logits": "probabilities", "probabilities": "logits"}
    for each in net.graph.node:
        for side in (each.input, each.output):
            side[:] = [swapped.get(name, name) for name in side]


def return_doubles(net: onnx.ModelProto) -> None:
    before_output(net, "logits", "Cast", to=TensorProto.DOUBLE)
    net.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def normalise_each_picture(net: onnx.ModelProto) -> None:
    """Divide a picture by its largest value and multiply it again: 0 / 0 for an empty one."""
    reduce = helper.make_node("ReduceMax", ["image"], ["top"], axes=[1, 2, 3], keepdims=1)
    divide = helper.make_node("Div", ["image", "top"], ["unit"])
    multiply = helper.make_node("Mul", ["unit", "top"], ["image_"])
    for each in net.graph.node:
        each.input[:] = ["image_" if name == "image" else name for name in each.input]
    for i, each in enumerate((reduce, divide, multiply)):
        net.graph.node.insert(i, each)


def hard_code_the_first_row(net: onnx.ModelProto) -> None:
    """Answer every row of a batch as the first: invisible where rows are tried alone."""
    first = helper.make_node("Slice", ["image", "from", "to"], ["first"])
    shape = helper.make_node("Shape", ["image"], ["shape"])
    spread = helper.make_node("Expand", ["first", "shape"], ["image_"])
    for name, value in (("from", 0), ("to", 1)):
        net.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    for each in net.graph.node:
        each.input[:] = ["image_" if name == "image" else name for name in each.input]
    for i, each in enumerate((first, shape, spread)):
        net.graph.node.insert(i, each)


def halve_the_precision(net: onnx.ModelProto) -> None:
    for name in ("w1", "w2", "w3"):
        change(name, lambda w: w.astype(np.float16).astype(np.float32), net)


FAULTS: dict[str, Callable[[onnx.ModelProto], None]] = {
    "bias-of-a-convolution-dropped": lambda net: change("b1", np.zeros_like, net),
    "bias-of-the-head-dropped": lambda net: change("b3", np.zeros_like, net),
    "running-mean-dropped": lambda net: change("mean2", np.zeros_like, net),
    "running-variance-dropped": lambda net: change("var2", np.ones_like, net),
    "other-weights": weights_of_another_seed,
    "one-weight-off-by-one-percent": lambda net: change(
        "w2", at((3, 2, 1, 1), lambda w: w * 1.01), net
    ),
    "sign-of-one-channel": lambda net: change("scale1", at(2, lambda w: -w), net),
    "weights-rounded-to-float16": halve_the_precision,
    "kernel-transposed": lambda net: change("w1", lambda w: w.transpose(0, 1, 3, 2), net),
    "nan-for-one-class": lambda net: change("b3", at(3, np.nan), net),
    "infinity-for-one-class": lambda net: change("b3", at(3, -np.inf), net),
    "nan-for-an-empty-picture-only": normalise_each_picture,
    "epsilon-of-batch-norm": lambda net: set_attribute(net, "norm1", epsilon=1e-3),
    "padding-moved": lambda net: set_attribute(net, "conv1", pads=[2, 2, 0, 0]),
    "average-for-maximum-pooling": lambda net: change_kind(net, "pool", "AveragePool"),
    "leaky-relu": lambda net: change_kind(net, "relu1", "LeakyRelu"),
    "softmax-over-the-batch": lambda net: set_attribute(net, "softmax", axis=0),
    "softmax-twice": lambda net: before_output(net, "probabilities", "Softmax", axis=1),
    "height-and-width-swapped": lambda net: insert(net, "image", "Transpose", perm=[0, 1, 3, 2]),
    "channels-swapped": lambda net: insert(net, "image", "Gather", np.array([2, 1, 0]), axis=1),
    "scaled-by-one-in-two-thousand": lambda net: insert(net, "flat", "Mul", np.float32(1.0005)),
    "labels-off-by-one": lambda net: before_output(net, "label", "Add", np.array(1)),
    "logits-moved-but-not-their-order": lambda net: before_output(
        net, "logits", "Add", np.float32(0.01)
    ),
    "logits-all-zero": lambda net: before_output(net, "logits", "Mul", np.float32(0)),
    "one-answer-for-everything": lambda net: change("w3", np.zeros_like, net),
    "first-row-hard-coded": hard_code_the_first_row,
    "float64-logits": return_doubles,
    "an-output-missing": drop_output,
    "an-output-too-many": name_another_output,
    "outputs-swapped": swap_outputs,
}


# --- proving ------------------------------------------------------------------------------


class Bench:
    """The probes, and the good network's answers to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("good", "inputs", "reference"):
            (folder / name).mkdir()
        onnx.save(network(), folder / "good" / "model.onnx")
        request = ProbesRequest(recipe=RECIPE, pictures=(), held_out=None, folder=folder / "inputs")
        self.probes: tuple[ProbeInfo, ...] = make_probes(request).probes
        self.answer(folder / "good", folder / "reference")

    def answer(self, model: Path, answers: Path) -> None:
        answer(
            AnswerRequest(
                recipe=RECIPE,
                format=ModelFormat.ONNX,
                model=model,
                probes=self.folder / "inputs",
                names=tuple(each.name for each in self.probes),
                device="cpu",
                folder=answers,
            )
        )

    def compare(self, answers: Path) -> ParityReport:
        return compare(
            CompareRequest(
                recipe=RECIPE,
                candidate=ModelFormat.ONNX,
                runtime="onnxruntime",
                probes=self.probes,
                reference=self.folder / "reference",
                answers=answers,
            )
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("name", FAULTS)
def test_the_checker_passes_what_parity_does_not(bench: Bench, tmp_path: Path, name: str) -> None:
    net = network()
    FAULTS[name](net)
    onnx.checker.check_model(net, full_check=True)
    path = tmp_path / "model.onnx"
    onnx.save(net, path)
    session = open_session("net", path)
    for probe in bench.probes:
        inputs = load_arrays(bench.folder / "inputs" / f"{probe.name}.npz")
        # not by the runner, which refuses other outputs by itself: the comparison must too
        save_arrays(tmp_path / f"{probe.name}.npz", run_session(session, inputs))

    report = bench.compare(tmp_path)

    assert not report.passed
    assert report.discriminates
    assert report.reasons()


def test_the_good_network_saved_again_passes(bench: Bench, tmp_path: Path) -> None:
    onnx.save(onnx.load(bench.folder / "good" / "model.onnx"), tmp_path / "model.onnx")
    bench.answer(tmp_path, tmp_path)

    report = bench.compare(tmp_path)

    assert report.passed, report.summary()
    assert report.budget == 0


def test_the_good_network_run_without_optimisation_passes(bench: Bench, tmp_path: Path) -> None:
    session = open_session("net", bench.folder / "good" / "model.onnx", optimisation="off")
    for probe in bench.probes:
        inputs = load_arrays(bench.folder / "inputs" / f"{probe.name}.npz")
        save_arrays(tmp_path / f"{probe.name}.npz", run_session(session, inputs))

    report = bench.compare(tmp_path)

    assert report.passed, report.summary()


def test_batch_norm_folded_by_hand_passes(bench: Bench, tmp_path: Path) -> None:
    net = network()
    stored = {each.name: numpy_helper.to_array(each) for each in net.graph.initializer}
    for stage in ("1", "2"):
        parts = (stored[f"{part}{stage}"] for part in ("scale", "shift", "mean", "var"))
        scale, shift, mean, var = parts
        factor = scale / np.sqrt(var + np.float32(1e-5))
        weight, bias = stored[f"w{stage}"], stored[f"b{stage}"]
        folded = (weight * factor[:, None, None, None], (bias - mean) * factor + shift)
        for name, array in zip((f"w{stage}", f"b{stage}"), folded, strict=True):
            change(name, partial(np.full_like, fill_value=array), net)
        net.graph.node.remove(node(net, f"norm{stage}"))
        node(net, f"relu{stage}").input[0] = f"c{stage}"
    onnx.checker.check_model(net, full_check=True)
    onnx.save(net, tmp_path / "model.onnx")
    bench.answer(tmp_path, tmp_path)

    report = bench.compare(tmp_path)

    assert report.passed, report.summary()
