"""From an ONNX file to the operators of its picture; runs in a child process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.graph.ops import TIMES, Kind, Op
from tasks.steps.onnx_file import DTYPES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

Proto: TypeAlias = Any
"""A message of onnx.proto, whose package has no types."""

_SMALL = 1_000
"""Tensors up to this many numbers may say a shape, and are kept for shape inference."""
_SETTINGS = 16
"""Up to this many whole numbers are a setting, such as the target of a Reshape."""
_WEIGHTED = {
    "Attention", "Conv", "ConvInteger", "ConvTranspose", "Einsum", "GRU", "Gather", "Gemm",
    "LSTM", "LinearClassifier", "LinearRegressor", "MatMul", "MatMulInteger", "QLinearConv",
    "QLinearMatMul", "RNN", "SVMClassifier", "SVMRegressor", "TfIdfVectorizer", "TreeEnsemble",
    "TreeEnsembleClassifier", "TreeEnsembleRegressor",
}  # fmt: skip
_ACTIVATIONS = {
    "Cast", "Celu", "Clip", "Dropout", "Elu", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Mish", "PRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Swish",
    "Tanh", "ThresholdedRelu",
}  # fmt: skip


def read_ops(model: Proto) -> list[Op]:
    """Return the graph's inputs, its operators that depend on them, and its outputs.

    What depends on no input is a constant; its numbers count as weights of who takes it.

    Args:
        model: A ``ModelProto``; its large weights are emptied, since shapes do not need them.
    """
    weights = _constants(model.graph)
    shapes = _shapes(model)
    made: dict[str, int] = {}
    ops: list[Op] = []
    for each in model.graph.input:
        if each.name not in weights:
            made[each.name] = len(ops)
            ops.append(Op(each.name, (), Kind.INPUT, _type(each), shapes.get(each.name, "")))
    for node in model.graph.node:
        taken = list(_taken(node))
        sources = tuple(dict.fromkeys(made[name] for name in taken if name in made))
        own = sum(weights.pop(name, 0) for name in taken) + _listed(node)
        if not sources:
            weights |= {name: own if i == 0 else 0 for i, name in enumerate(node.output)}
            continue
        made |= dict.fromkeys(filter(None, node.output), len(ops))
        shape = shapes.get(node.output[0], "")
        kind, detail = _kind(node.op_type, own), _detail(node, shape)
        ops.append(Op(node.op_type, sources, kind, detail, shape, own))
    for each in model.graph.output:
        sources = (made[each.name],) if each.name in made else ()
        ops.append(Op(each.name, sources, Kind.OUTPUT, _type(each)))
    return ops


def _constants(graph: Proto) -> dict[str, int]:
    """Return how many numbers each named constant of the graph holds."""
    found = {each.name: _numbers(each) for each in graph.initializer}
    return found | {each.values.name: math.prod(each.dims) for each in graph.sparse_initializer}


def _numbers(tensor: Proto) -> int:
    """Count a tensor's numbers; what sets a shape, an axis or a bound is no weight."""
    size = math.prod(tensor.dims)
    least = 1 if DTYPES.get(tensor.data_type, "").startswith(("float", "u")) else _SETTINGS
    return size if size > least else 0


def _taken(node: Proto) -> Iterator[str]:
    """Yield the names of what a node takes, also of what its subgraphs take from outside."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _taken(inner)


def _listed(node: Proto) -> int:
    """Count what a node holds itself: a constant's numbers, a tree's, a linear model's."""
    return sum(
        len(each.floats) + (_numbers(each.t) if each.HasField("t") else 0)
        for each in node.attribute
    )


def _shapes(model: Proto) -> dict[str, str]:
    """Return the shape of every tensor whose shape can be told."""
    import onnx

    for each in model.graph.initializer:
        if math.prod(each.dims) > _SMALL:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
                each.ClearField(field)
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # noqa: BLE001 - a picture without shapes is better than none
        graph = model.graph
    known = (*graph.value_info, *graph.input, *graph.output)
    axes = {
        dim.dim_param
        for each in (*graph.input, *graph.output)
        for dim in each.type.tensor_type.shape.dim
    }
    return {each.name: _shape(each, axes) for each in known}


def _shape(info: Proto, axes: Collection[str]) -> str:
    dims = list(_dims(info, axes))
    return "" if set(dims) == {"?"} else TIMES.join(dims)


def _dims(info: Proto, axes: Collection[str]) -> Iterable[str]:
    """Yield sizes; an axis that exporters or shape inference named for themselves is ``?``."""
    for dim in info.type.tensor_type.shape.dim:
        free = dim.dim_param if dim.dim_param in axes else ""
        yield str(dim.dim_value) if dim.HasField("dim_value") else free or "?"


def _type(info: Proto) -> str:
    if not info.type.HasField("tensor_type"):
        return info.type.WhichOneof("value") or ""
    tensor = info.type.tensor_type
    dims = [str(dim.dim_value or dim.dim_param or "?") for dim in tensor.shape.dim]
    return f"{DTYPES.get(tensor.elem_type, '?')}[{', '.join(dims)}]"


def _kind(name: str, weights: int) -> Kind:
    if name in _ACTIVATIONS:
        return Kind.ACTIVATION
    return Kind.WEIGHTS if name in _WEIGHTED and weights else Kind.OTHER


def _detail(node: Proto, shape: str) -> str:
    """Say in a few characters what tells this node from others of its kind."""
    held = {each.name: each for each in node.attribute}
    words = []
    if (kernel := held.get("kernel_shape")) is not None:
        words.append(TIMES.join(map(str, kernel.ints)))
    if (strides := held.get("strides")) is not None and set(strides.ints) != {1}:
        each = strides.ints
        words.append(f"/{each[0]}" if len(set(each)) == 1 else f"/{TIMES.join(map(str, each))}")
    if (group := held.get("group")) is not None and group.i > 1:
        alone = f"{TIMES}{group.i}{TIMES}" in shape  # as many groups as channels
        words.append("depthwise" if alone else f"{group.i} groups")
    if (trees := held.get("nodes_treeids")) is not None:
        words.append(f"{len(set(trees.ints)):,} trees, {len(trees.ints):,} nodes")
    if (hidden := held.get("hidden_size")) is not None:
        words.append(f"{hidden.i} units")
    if (order := held.get("perm")) is not None:
        words.append(",".join(map(str, order.ints)))
    if (to := held.get("to")) is not None:
        words.append(str(DTYPES.get(to.i, "?")))
    inner = sum(len(graph.node) for each in held.values() for graph in (each.g, *each.graphs))
    return " ".join([*words, f"({inner} nodes inside)"] if inner else words)
