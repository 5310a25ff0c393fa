"""TensorFlow operators that tf2onnx does not know, in terms of those that ONNX has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from tf2onnx.graph import Graph, Node

    Handlers: TypeAlias = dict[str, tuple[Callable[[Graph, Node, str, list[Any]], None], list[Any]]]


def handlers() -> Handlers:
    """Return what tf2onnx takes as ``custom_op_handlers``."""
    return {"Erfc": (_erfc, [])}


def _erfc(graph: Graph, node: Node, name: str, args: list[Any]) -> None:
    """Write ``erfc(x)`` as ``1 - erf(x)``; Keras 3 has it in its exact GELU."""
    from tf2onnx.utils import map_onnx_to_numpy_type

    del args
    dtype = graph.get_dtype(node.input[0])
    one = graph.make_const(f"{name}__one", np.array(1, map_onnx_to_numpy_type(dtype)))
    erf = graph.make_node(
        "Erf", [node.input[0]], shapes=[graph.get_shape(node.input[0])], dtypes=[dtype]
    )
    node.type = "Sub"
    graph.replace_inputs(node, [one.output[0], erf.output[0]])
