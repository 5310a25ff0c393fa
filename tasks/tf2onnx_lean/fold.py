"""What an ONNX graph does to its weights before it uses them is done to the weights instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.tf2onnx_lean.weights import Weight, cast, reshaped, transposed

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto, TensorProto

_DTYPES = ("float16", "float32", "float64")


def fold(graph: GraphProto, weights: dict[str, Weight]) -> dict[str, Weight]:
    """Take nodes that only rearrange a weight out of ``graph``.

    Args:
        graph: An ``onnx.GraphProto`` in topological order; changed in place.
        weights: By the name of the graph input that stands for each; these inputs are removed.

    Returns:
        The weights that the graph still asks for, by tensor name.
    """
    known = dict(weights)
    outputs = {each.name for each in graph.output}
    inner = set(inner_names(graph))
    constants = {each.name: each for each in graph.initializer}
    first: dict[Hashable, str] = {weight.key: name for name, weight in known.items()}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        weight = known.get(node.input[0]) if len(node.output) == 1 and node.input else None
        result = _rearranged(node, weight, constants) if weight else None
        if result is None or node.output[0] in outputs:
            kept.append(node)
        elif node.output[0] not in inner and result.key in first:
            same[node.output[0]] = first[result.key]
        else:
            known[node.output[0]] = result
            first.setdefault(result.key, node.output[0])
    replace_nodes(graph, kept)
    return known


def _rearranged(
    node: NodeProto, weight: Weight, constants: dict[str, TensorProto]
) -> Weight | None:
    """Return what ``node`` makes of ``weight``, or ``None`` if that is more than rearranging."""
    attributes = {each.name: each for each in node.attribute}
    match node.op_type:
        case "Identity":
            return weight
        case "Transpose":
            axes = tuple(attributes["perm"].ints) if "perm" in attributes else ()
            return transposed(weight, axes or tuple(reversed(range(len(weight.shape)))))
        case "Cast":
            return _cast(weight, attributes["to"].i)
        case "Reshape" | "Squeeze" | "Unsqueeze":
            return _reshaped(node, weight, constants)
        case _:
            return None


def _reshaped(node: NodeProto, weight: Weight, constants: dict[str, TensorProto]) -> Weight | None:
    if len(node.input) > 1 and node.input[1] not in constants:
        return None
    wanted = _values(constants[node.input[1]]) if len(node.input) > 1 else ()
    if 0 in wanted and any(each.name == "allowzero" for each in node.attribute):
        return None
    return reshaped(weight, _new_shape(node.op_type, weight.shape, wanted))


def _cast(weight: Weight, type_code: int) -> Weight | None:
    from onnx import helper

    dtype = helper.tensor_dtype_to_np_dtype(type_code)
    return cast(weight, dtype) if dtype.name in _DTYPES else None


def _values(tensor: TensorProto) -> tuple[int, ...]:
    from onnx import numpy_helper

    return tuple(int(each) for each in numpy_helper.to_array(tensor).ravel())


def _new_shape(operator: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    # numpy views of no bytes know the rules of each operator
    empty: NDArray[np.generic]
    if operator == "Reshape":
        filled = [shape[i] if size == 0 else size for i, size in enumerate(wanted)]
        known = int(np.prod([size for size in filled if size != -1], dtype=np.int64))
        rest = int(np.prod(shape, dtype=np.int64)) // max(known, 1)
        return tuple(rest if size == -1 else size for size in filled)
    empty = np.broadcast_to(np.zeros(()), shape)
    result: NDArray[np.generic] = (
        np.expand_dims(empty, wanted)
        if operator == "Unsqueeze"
        else np.squeeze(empty, wanted or None)
    )
    return result.shape


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Make ``nodes`` the nodes of ``graph``."""
    copies = []
    for node in nodes:
        copy = type(node)()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)


def used_names(graph: GraphProto) -> set[str]:
    """Return the name of every tensor that the graph or a graph inside it reads or returns."""
    names = {name for node in graph.node for name in node.input}
    return names | {each.name for each in graph.output} | set(inner_names(graph))


def inner_names(graph: GraphProto) -> Iterator[str]:
    """Yield the name of every tensor that the bodies of loops and branches read or return."""
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from used_names(body)
