"""A scale or a shift behind a convolution becomes part of it, as TensorFlow's own passes do.

They cannot do it here, because they do not see the weights. Without this a folded
BatchNormalization would stay in the graph as two nodes behind each convolution.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from tasks.tf2onnx_lean.fold import inner_names, replace_nodes
from tasks.tf2onnx_lean.weights import Weight, scaled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto


def fuse(graph: GraphProto, weights: dict[str, Weight]) -> dict[str, Weight]:
    """Fuse ``Conv → Mul → Add`` with constants for each channel into the ``Conv``.

    Args:
        graph: An ``onnx.GraphProto``; changed in place.
        weights: The weights outside the graph, by tensor name.

    Returns:
        The weights, with those of fused convolutions under new names.
    """
    fusion = _Fusion(graph, dict(weights))
    for node in list(graph.node):
        if node.op_type == "Conv":
            fusion.absorb(node)
    replace_nodes(graph, [node for node in graph.node if id(node) not in fusion.gone])
    return fusion.weights


class _Fusion:
    """The graph's look-up tables, while convolutions absorb what follows them."""

    def __init__(self, graph: GraphProto, weights: dict[str, Weight]) -> None:
        self.weights = weights
        self.gone: set[int] = set()
        self._nodes = list(graph.node)  # holds the objects, so that their ids stay theirs
        self._graph = graph
        self._constants = {each.name: each for each in graph.initializer}
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        self._uses = Counter(name for node in self._nodes for name in node.input)
        self._uses.update(each.name for each in graph.output)
        self._uses.update(inner_names(graph))

    def absorb(self, conv: NodeProto) -> None:
        """Fuse what follows ``conv`` for as long as it is a scale or a shift."""
        kernel = self.weights.get(conv.input[1]) or self._small_kernel(conv.input[1])
        if kernel is None:
            return
        channels, rank = kernel.shape[0], len(kernel.shape)
        bias = self._bias(conv, channels)
        factor = np.ones(channels)
        absorbed = False
        while bias is not None and (found := self._next(conv, channels, rank)):
            node, value = found
            if node.op_type == "Mul":
                factor, bias = factor * value, bias * value
            else:
                bias = bias + value
            conv.output[0] = node.output[0]
            self.gone.add(id(node))
            absorbed = True
        if bias is not None and absorbed:
            self._rewrite(conv, kernel, factor, bias)

    def _small_kernel(self, name: str) -> Weight | None:
        from onnx import numpy_helper

        if name not in self._constants:
            return None
        value = numpy_helper.to_array(self._constants[name])
        return Weight(name, value.shape, value.dtype, lambda: value)

    def _bias(self, conv: NodeProto, channels: int) -> NDArray[np.float64] | None:
        if len(conv.input) < 3 or not conv.input[2]:  # noqa: PLR2004 - input, kernel, bias
            return np.zeros(channels)
        return self._constant(conv.input[2])

    def _constant(self, name: str) -> NDArray[np.float64] | None:
        from onnx import numpy_helper

        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor).astype(np.float64)

    def _next(
        self,
        conv: NodeProto,
        channels: int,
        rank: int,
    ) -> tuple[NodeProto, NDArray[np.float64]] | None:
        """Return the only reader of ``conv``, if it is a scale or shift, and its constant."""
        name = conv.output[0]
        readers = self._consumers.get(name, [])
        if self._uses[name] != 1 or len(readers) != 1 or readers[0].op_type not in ("Mul", "Add"):
            return None
        value = self._constant(next((each for each in readers[0].input if each != name), name))
        if value is None or value.ndim > rank:
            return None
        by_axis = (1,) * (rank - value.ndim) + value.shape
        if any(size != 1 for axis, size in enumerate(by_axis) if axis != 1):
            return None
        if by_axis[1] not in (1, channels):
            return None
        return readers[0], np.broadcast_to(value.ravel(), channels)

    def _rewrite(
        self,
        conv: NodeProto,
        kernel: Weight,
        factor: NDArray[np.float64],
        bias: NDArray[np.float64],
    ) -> None:
        from onnx import numpy_helper

        name = conv.output[0]
        weight_name, bias_name = f"{name}/kernel", f"{name}/bias"
        changed = bool((factor != 1).any())
        self.weights[weight_name] = scaled(kernel, factor) if changed else kernel
        tensor = numpy_helper.from_array(bias.astype(kernel.dtype), bias_name)
        self._graph.initializer.append(tensor)
        conv.input[:] = [conv.input[0], weight_name, bias_name]
