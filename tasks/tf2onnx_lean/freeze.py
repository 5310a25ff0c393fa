"""A TensorFlow function as a graph whose large weights are inputs, not constants."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.tf2onnx_lean.weights import Weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import ModuleType

    from numpy.typing import DTypeLike, NDArray
    from tensorflow import DType
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.python.trackable.base import Trackable
    from tensorflow.types.experimental import ConcreteFunction

LARGE_VARIABLE = 4_096
"""Elements from which a variable of two or more axes leaves the graph. Vectors (biases,
statistics of BatchNormalization) stay: graph passes fold them, and they are small."""
LARGE_CONSTANT = 262_144
"""The same for constants, which graph passes may want to fold into one another."""
_LARGE_VECTOR = 262_144
_CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"}
_PASSING_ON = {"Identity", "ReadVariableOp", "Cast"}
_LONGEST_PATH = 4
"""Nodes of the second kind between a weight and a loop; they may come in any order."""
_TYPES = ("float16", "float32", "float64")


@dataclass(frozen=True)
class FrozenGraph:
    """A graph without variables, and the weights that became its inputs."""

    graph_def: GraphDef
    tables: dict[bytes, tuple[NDArray[np.generic], NDArray[np.generic]]]
    """Content of lookup tables, for tf2onnx."""
    all_inputs: tuple[str, ...]
    """Tensor names of the function's own inputs."""
    inputs: tuple[str, ...]
    """Those of them that the graph still has: an input that nothing reads may be gone."""
    outputs: tuple[str, ...]
    weights: tuple[Weight, ...]
    """Each by the name of the graph input that stands for it."""


def freeze(owner: Trackable, function: ConcreteFunction, *, lift: bool = True) -> FrozenGraph:
    """Freeze a concrete function, with its large weights as inputs of the graph.

    Args:
        owner: The model or SavedModel that owns the function's variables and tables.
        function: A ``tf.types.experimental.ConcreteFunction``.
        lift: False leaves every weight a constant, as tf2onnx by itself would.
    """
    from tf2onnx import tf_loader

    captured = {inner.name for _, inner in function.graph.captures}
    inputs = tuple(each.name for each in function.inputs if each.name not in captured)
    outputs = tuple(each.name for each in function.outputs)
    weights: dict[str, Weight] = {}

    def from_function(
        function: ConcreteFunction, inputs: list[str], outputs: list[str], *_: object
    ) -> GraphDef:
        graph_def = _without_variables(function, weights, lift=lift)
        return _optimized(graph_def, inputs, outputs)

    with _replaced(tf_loader, "from_function", from_function):
        graph_def, tables = tf_loader.from_trackable(
            owner, function, list(inputs), list(outputs), large_model=False
        )
    present = {node.name for node in graph_def.node}
    return FrozenGraph(
        graph_def=graph_def,
        tables=tables,
        all_inputs=inputs,
        inputs=tuple(name for name in inputs if name.split(":")[0] in present),
        outputs=outputs,
        weights=tuple(each for each in weights.values() if each.name in present),
    )


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    # tf2onnx finds lookup tables around its own freezing and has no seam between the two
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _without_variables(
    function: ConcreteFunction, weights: dict[str, Weight], *, lift: bool
) -> GraphDef:
    """Return the function's graph with small variables as constants and large ones as inputs.

    TensorFlow's own conversion does the work, control flow included; it is given a stand-in
    of no bytes for each large weight, whose node then becomes a placeholder.
    """
    from tensorflow.python.framework import convert_to_constants as freezing
    from tf2onnx import tf_loader

    large = _large_captures(function) if lift else {}
    data = freezing._FunctionConverterDataInEager(  # noqa: SLF001 - as tf2onnx does, for want of a public one
        func=function,
        lower_control_flow=False,
        aggressive_inlining=True,
        variable_names_denylist=set(large),
    )
    looped = _entering_loops(data.graph_def, large)
    for index, (_, inner) in enumerate(function.graph.captures):
        if weight := large.get(inner.op.name):
            data.tensor_data[weight.name] = freezing._TensorData(  # noqa: SLF001
                numpy=weight.value() if weight.name in looped else _StandIn(weight),
                dtype=_tf_type(weight).as_datatype_enum,
                index=index,
            )
    graph_def, _ = freezing._replace_variables_by_constants(converter_data=data)  # noqa: SLF001
    weights.update({name: each for name, each in large.items() if name not in looped})
    for node in graph_def.node:
        if lift and node.op == "Const" and node.name not in weights:
            _note_constant(node, weights)
        if node.name in weights:
            _make_input(node, weights[node.name])
    return tf_loader.fix_freezing_errors_part2(graph_def)


def _entering_loops(graph_def: GraphDef, names: Iterable[str]) -> set[str]:
    """Return which of the named nodes are read by loops or branches.

    tf2onnx recognises the loops of recurrent layers only where it sees their weights.
    """
    reads = {name: {name} for name in names}
    found: set[str] = set()
    for _ in range(_LONGEST_PATH):
        for node in graph_def.node:
            sources = (each.split(":")[0].removeprefix("^") for each in node.input)
            read = set().union(*(reads.get(each, ()) for each in sources))
            if read and node.op in _PASSING_ON:
                reads[node.name] = read
            elif node.op in _CONTROL_FLOW:
                found |= read
    return found


def _large_captures(function: ConcreteFunction) -> dict[str, Weight]:
    import tensorflow as tf

    variables = {id(each.handle): each for each in function.graph.variables}
    found = {}
    for outer, inner in function.graph.captures:
        variable = variables.get(id(outer))
        if variable is None and outer.dtype == tf.resource:
            continue  # a lookup table
        value, limit = (outer, LARGE_CONSTANT) if variable is None else (variable, LARGE_VARIABLE)
        if value.dtype.name in _TYPES and _is_large(value.shape, limit):
            name = inner.op.name
            dtype = np.dtype(value.dtype.as_numpy_dtype)
            found[name] = Weight(name, tuple(value.shape), dtype, value.numpy)
    return found


def _is_large(shape: Sequence[int], limit: int) -> bool:
    size = int(np.prod(tuple(shape), dtype=np.int64))
    return size >= (limit if len(shape) > 1 else max(limit, _LARGE_VECTOR))


class _StandIn:
    """Has the shape of a weight, and one element where TensorFlow asks for its value."""

    def __init__(self, weight: Weight) -> None:
        self.shape = weight.shape
        self._dtype = weight.dtype

    def __array__(
        self, dtype: DTypeLike | None = None, *, copy: bool | None = None
    ) -> NDArray[np.generic]:
        del copy  # numpy's protocol; what is made here is always new
        return np.zeros(1, dtype or self._dtype)


def _tf_type(weight: Weight) -> DType:
    import tensorflow as tf

    return tf.as_dtype(weight.dtype)


def _note_constant(node: NodeDef, weights: dict[str, Weight]) -> None:
    """Take a large constant of the graph's own along with the weights."""
    import tensorflow as tf

    tensor = node.attr["value"].tensor
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    dtype = tf.as_dtype(node.attr["dtype"].type)
    if dtype.name in _TYPES and _is_large(shape, LARGE_CONSTANT):
        value = tf.make_ndarray(tensor)
        weights[node.name] = Weight(node.name, shape, value.dtype, lambda: value)


def _make_input(node: NodeDef, weight: Weight) -> None:
    import tensorflow as tf

    node.Clear()
    node.name, node.op = weight.name, "Placeholder"
    node.attr["dtype"].type = _tf_type(weight).as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(weight.shape).as_proto())


def _optimized(graph_def: GraphDef, inputs: list[str], outputs: list[str]) -> GraphDef:
    import tensorflow as tf
    from tf2onnx import tf_loader

    with tf.Graph().as_default():
        tf.import_graph_def(graph_def, name="")
        return tf_loader.tf_optimize(inputs, outputs, graph_def)
