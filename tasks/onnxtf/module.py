"""The ``tf.Module`` of a converted graph: its weights are variables, its code is traced once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.onnxtf.registry import Tensor

Given: TypeAlias = Any
"""A value of onnx-tf or of onnx, which have no stubs."""

_VARIABLE_BYTES = 4096
"""Weights from this size on are variables; smaller arrays stay in the graph, where shapes and
axes must be known while it is built."""


def _graphs(graph: Given) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _graphs(inner)


class GraphModule(tf.Module):  # type: ignore[misc]  # TensorFlow has no stubs
    """Stands in for onnx-tf's ``BackendTFModule``, whose attributes and calls it has.

    onnx-tf keeps each weight as a constant made from a Python list: slow, twenty times its
    size while it lasts, and bound by the 2 GB that a graph may have. Here a weight is a
    variable, and the graph is traced without AutoGraph, which no handler needs.
    """

    def __init__(
        self, handlers: Given, opset: Given, strict: Given, graph_def: Given, backend: Given
    ) -> None:
        from onnx_tf.backend_tf_module import TFModuleHelper

        super().__init__()
        self.handlers = handlers
        self.opset = opset
        self.strict = strict
        self.graph_def = graph_def
        self.backend = backend
        self.outputs: list[str] = []
        self.is_export = False
        self._constants: dict[str, Any] = {}
        self._weights: dict[str, Any] = {}
        for graph in _graphs(graph_def):
            self._take_weights(graph)
        self._handler_variables = TFModuleHelper._create_handlers_variables_for_graph(  # noqa: SLF001
            handlers, graph_def, self._constants | self._weights
        )

    def _take_weights(self, graph: Given) -> None:
        from onnx import numpy_helper

        for each in graph.initializer:
            value = numpy_helper.to_array(each)
            if value.nbytes >= _VARIABLE_BYTES and value.dtype != object:
                name = "".join(c if c.isalnum() else "_" for c in each.name) or "weight"
                self._weights[each.name] = tf.Variable(value, trainable=False, name=name)
            else:
                self._constants[each.name] = value

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Answer one batch: outputs by name."""
        from onnx_tf.pb_wrapper import OnnxNode

        tensors = dict(inputs)
        tensors |= {name: tf.constant(value) for name, value in self._constants.items()}
        tensors |= {name: weight.read_value() for name, weight in self._weights.items()}
        tensors |= self._handler_variables
        for proto in self.graph_def.node:
            node = OnnxNode(proto)
            values = self.backend._onnx_node_to_tensorflow_op(  # noqa: SLF001 - onnx-tf's own way in
                node, tensors, self.handlers, opset=self.opset, strict=self.strict
            )
            tensors |= zip(node.outputs, values, strict=False)
        return {each.name: _declared(tensors[each.name], each) for each in self.graph_def.output}


def _declared(tensor: Tensor, output: Given) -> Tensor:
    """Hold an output to the shape that the ONNX file declares."""
    kind = output.type.tensor_type
    if not output.type.HasField("tensor_type") or not kind.HasField("shape"):
        return tensor
    if not isinstance(tensor, tf.Tensor):
        return tensor
    shape = [dim.dim_value or None for dim in kind.shape.dim]
    return tf.ensure_shape(tf.identity(tensor), shape)
