"""The smallest graph that still shows the fault: some nodes, their weights, what they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.tracing.agreement import close
from tasks.tracing.graph import node_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tasks.domain.parity import Tolerance
    from tasks.tracing.graph import TracedGraph

    Arrays = dict[str, NDArray[Any]]

_MOST_BYTES = 64 * 1024 * 1024
"""A reproducer is read by people and sent about; one layer's weights are below this."""


@dataclass
class Cut:
    """A graph of its own, what it is asked, what it answers and what it should."""

    model: Any
    """``onnx.ModelProto``."""
    inputs: Arrays
    expected: Arrays
    got: Arrays
    notes: tuple[str, ...] = ()


def sub_graph(
    graph: TracedGraph, nodes: Sequence[Any], tensor: str, instead: dict[str, str] | None = None
) -> tuple[Any, list[str]]:
    """Return a model of ``nodes`` that answers ``tensor``, and the names of what it reads.

    Args:
        graph: Where the nodes are from.
        nodes: In their order.
        tensor: Made by one of them.
        instead: Tensors to read in the place of others.
    """
    import onnx

    swapped = instead or {}
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [swapped.get(name, name) for name in copy.input]
        copies.append(copy)
    copies = _needed(copies, tensor)
    made = {name for node in copies for name in node.output}
    read = list(dict.fromkeys(n for node in copies for n in node.input if n and n not in made))
    weights = [n for n in read if graph.weight(n) is not None]
    given = [n for n in read if n not in weights]
    proto = onnx.helper.make_graph(
        copies,
        "cut",
        [_info(name, graph.values[name]) for name in given],
        [onnx.ValueInfoProto(name=tensor)],
        [onnx.numpy_helper.from_array(graph.weight(name), name) for name in weights],
    )
    model = onnx.helper.make_model(
        proto, opset_imports=list(graph.proto.opset_import), ir_version=graph.proto.ir_version
    )
    model.functions.extend(graph.proto.functions)
    return model, given


def _needed(nodes: list[Any], tensor: str) -> list[Any]:
    wanted = {tensor}
    kept: list[Any] = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.insert(0, node)
            wanted |= set(node.input)
    return kept


def _info(name: str, array: NDArray[Any]) -> Any:  # noqa: ANN401
    import onnx

    text = array.dtype.kind in "UO"
    kind = onnx.TensorProto.STRING if text else onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, [None] * array.ndim)


def run_cut(model: Any, inputs: Arrays) -> Arrays:  # noqa: ANN401
    """Let ONNX Runtime answer, without rewriting the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    feed = {n: a.astype(object) if a.dtype.kind == "U" else a for n, a in inputs.items()}
    names = [each.name for each in session.get_outputs()]
    answers = map(np.asarray, session.run(names, feed))
    return {n: a.astype(np.str_) if a.dtype == object else a
            for n, a in zip(names, answers, strict=True)}  # fmt: skip


def innocent_without(
    graph: TracedGraph,
    nodes: Sequence[Any],
    tensor: str,
    expected: NDArray[Any],
    tolerance: Tolerance,
) -> Any | None:  # noqa: ANN401
    """Return the node without whose work the others answer rightly: one that was put in.

    For each tensor between, something that the nodes read, of its shape, is read in its place.
    """
    made = [name for node in nodes for name in node.output if name != tensor]
    read = [n for node in nodes for n in graph.computed(node) if n not in made]
    for name in reversed(made):
        for other in dict.fromkeys(read):
            ours, theirs = graph.values.get(name), graph.values.get(other)
            if ours is None or theirs is None or ours.shape != theirs.shape:
                continue
            if ours.dtype != theirs.dtype:
                continue
            model, given = sub_graph(graph, nodes, tensor, {name: other})
            try:
                got = run_cut(model, {each: graph.values[each] for each in given})[tensor]
            except Exception:  # noqa: BLE001, S112 - then it was not that one
                continue
            if close(expected, got, tolerance):
                return graph.maker[name]
    return None


def cut_out(
    graph: TracedGraph, nodes: Sequence[Any], tensor: str, expected: NDArray[Any],
    tolerance: Tolerance,
) -> Cut | None:  # fmt: skip
    """Return the smallest graph that shows the fault; None where none does."""
    for some in ([n for n in nodes if tensor in n.output], list(nodes)):
        model, given = sub_graph(graph, some, tensor)
        inputs = {name: graph.values[name] for name in given}
        if model.ByteSize() > _MOST_BYTES:
            return None
        try:
            got = run_cut(model, inputs)[tensor]
        except Exception:  # noqa: BLE001, S112 - a domain or a function that is not whole
            continue
        if not _shows(expected, got, tolerance):
            continue
        inputs, expected, got = _one_row(model, tensor, (inputs, expected, got), tolerance)
        return Cut(model, inputs, {tensor: expected}, {tensor: got})
    return None


def _shows(expected: NDArray[Any], got: NDArray[Any], tolerance: Tolerance) -> bool:
    same = expected.shape == got.shape and expected.dtype.kind == got.dtype.kind
    return not (same and close(expected, got, tolerance))


def _one_row(
    model: Any,  # noqa: ANN401
    tensor: str,
    found: tuple[Arrays, NDArray[Any], NDArray[Any]],
    tolerance: Tolerance,
) -> tuple[Arrays, NDArray[Any], NDArray[Any]]:
    inputs, expected, got = found
    arrays = [*inputs.values(), expected, got]
    rows = {len(each) if each.ndim else 0 for each in arrays}
    if len(rows) != 1:
        return found
    for row in range(rows.pop()):
        some = {name: each[row : row + 1] for name, each in inputs.items()}
        wanted = expected[row : row + 1]
        try:
            answer = run_cut(model, some)[tensor]
        except Exception:  # noqa: BLE001 - its size is fixed
            return found
        if answer.shape == wanted.shape and _shows(wanted, answer, tolerance):
            return some, wanted, answer
    return found


def names_of(nodes: Sequence[Any]) -> str:
    """Write the nodes' names for a line of text."""
    return ", ".join(node_name(each) for each in nodes)
