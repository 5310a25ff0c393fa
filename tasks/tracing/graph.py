"""A wrong ONNX graph beside the tensors that it makes: who makes what, who reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DEAF = frozenset({"ArgMax", "ArgMin", "Shape", "Size", "TopK", "Greater", "Less", "Equal", "Not"})
"""Operators whose answer may be right though what they read is not."""


class TracedGraph:
    """The nodes of one ONNX file in their order, with what each of their outputs holds."""

    def __init__(self, path: Path, values: dict[str, NDArray[Any]]) -> None:
        import onnx

        self.proto = onnx.load(path)
        self.values = values
        self.nodes = list(self.proto.graph.node)
        self.initializers = {each.name: each for each in self.proto.graph.initializer}
        self.inputs = {each.name for each in self.proto.graph.input} - self.initializers.keys()
        self.outputs = [each.name for each in self.proto.graph.output]
        self.maker = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)

    def weight(self, name: str) -> NDArray[Any] | None:
        """Return an initializer, or a ``Constant``, by its name."""
        from onnx import numpy_helper

        if name in self.initializers:
            array: NDArray[Any] = numpy_helper.to_array(self.initializers[name])
            return array
        maker = self.maker.get(name)
        if maker is not None and maker.op_type == "Constant":
            return self.values.get(name)
        return None

    def computed(self, node: Any) -> list[str]:  # noqa: ANN401 - onnx.NodeProto
        """Return what ``node`` reads that depends on the model's input."""
        return [n for n in dict.fromkeys(node.input) if n and self.weight(n) is None]


def node_name(node: Any) -> str:  # noqa: ANN401
    """Return a node's name; where it has none, that of its first output."""
    return str(node.name or node.output[0])


def op_type(node: Any) -> str:  # noqa: ANN401
    """Return a node's operator, with its domain where that is not the default one."""
    own = node.domain and node.domain != "ai.onnx"
    return f"{node.domain}.{node.op_type}" if own else str(node.op_type)


def finite(array: NDArray[Any] | None) -> bool:
    """Whether an array has no NaN and no infinity; one that is not there has none."""
    return array is None or array.dtype.kind != "f" or bool(np.isfinite(array).all())
