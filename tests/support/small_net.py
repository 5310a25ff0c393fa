"""A small convolutional network in ONNX, made by hand: for tests that need no exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tasks.domain.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
