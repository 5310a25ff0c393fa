"""What of an ONNX graph onnx-tf cannot express, found before any work is done."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tasks.domain.errors import ExportError
from tasks.onnxtf.widened import GUARDED

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES_SHOWN = 3

_TYPES = (*range(1, 14), 16)
"""The element types that TensorFlow has, as ``TensorProto.DataType`` numbers them: without the
complex ones, the 8-bit floats and what is narrower."""

_UNTRUE = ("Optional", "OptionalGetElement", "OptionalHasElement")
"""Operators that onnx-tf has but does wrong."""


def check_operators(model: Any) -> None:  # noqa: ANN401 - a ModelProto
    """Refuse a model that holds an operator, or a version of one, without a handler.

    ``load_backend`` must have been called, since its handlers are asked.

    Raises:
        ExportError: It names every such operator with its version, and where it stands.
    """
    from tasks.onnxtf.registry import handlers, versions

    known = {key: versions(handler) for key, handler in handlers().items()}
    opsets = {each.domain: each.version for each in model.opset_import}
    lost: defaultdict[str, list[str]] = defaultdict(list)
    for node in nodes_of(model.graph):
        version = _since(node, opsets)
        if node.op_type in _UNTRUE or version not in known.get((node.domain, node.op_type), ()):
            lost[f"{node.domain or 'ai.onnx'} {node.op_type}-{version}"].append(node.name)
        elif attribute := _overlooked(node):
            what = f"{node.domain or 'ai.onnx'} {node.op_type}-{version} with {attribute}"
            lost[what].append(node.name)
    for name, kind in _types(model.graph):
        if kind not in _TYPES:
            lost[f"element type {kind}"].append(name)
    if lost:
        what = ", ".join(f"{each} (node {_places(names)})" for each, names in sorted(lost.items()))
        hint = " Export scikit-learn classifiers without ZipMap." if "ZipMap" in what else ""
        raise ExportError(
            f"onnx-tf cannot express: {what}.{hint} Try converters.saved_model: [onnx2tf]."
        )


def nodes_of(graph: Any) -> Iterator[Any]:  # noqa: ANN401 - a GraphProto
    """Yield every node of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)


def _types(graph: Any) -> Iterator[tuple[str, int]]:  # noqa: ANN401
    for weight in graph.initializer:
        yield weight.name, weight.data_type
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type:
            yield value.name, value.type.tensor_type.elem_type


def _since(node: Any, opsets: dict[str, int]) -> int:  # noqa: ANN401
    """Return the version of a node's operator, or of its operator set where ONNX knows neither."""
    from onnx import defs

    opset = opsets.get(node.domain, 1)
    try:
        return int(defs.get_schema(node.op_type, opset, node.domain).since_version)
    except defs.SchemaError:
        return opset


def _overlooked(node: Any) -> str | None:  # noqa: ANN401
    """Return an attribute that a handler written for an elder version would overlook."""
    from onnx import helper

    guarded = GUARDED.get(node.op_type, {}) if not node.domain else {}
    for attribute in node.attribute:
        if attribute.name in guarded:
            value = helper.get_attribute_value(attribute)
            value = value.decode() if isinstance(value, bytes) else value
            if value not in guarded[attribute.name]:
                return f"{attribute.name} = {value}"
    return None


def _places(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return shown + (f" and {more} more" if more > 0 else "")
