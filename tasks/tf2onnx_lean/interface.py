"""The names and shapes that an ONNX graph shows to its users: the recipe's, in its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.errors import ExportError, SignatureMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

    from tasks.domain.artifact import TensorSpec
    from tasks.domain.recipe import Recipe


def show_interface(model: ModelProto, recipe: Recipe) -> None:
    """Declare the recipe's inputs and outputs, in its order, in an ``onnx.ModelProto``.

    Raises:
        SignatureMismatchError: The graph's own types or shapes contradict the recipe's.
    """
    graph = model.graph
    for kind, field, specs in (
        ("input", graph.input, recipe.signature.plain.inputs),
        ("output", graph.output, recipe.signature.plain.outputs),
    ):
        found = {each.name: each for each in field}
        for spec in specs:
            if spec.name in found:
                _compare(recipe, kind, spec, found[spec.name])
        declared = [_value_info(spec) for spec in specs]
        del field[:]
        field.extend(declared)
    del graph.value_info[:]  # carries tf2onnx's names of the dynamic axes; readers infer it anew


def check_operators(model: ModelProto, recipe: Recipe) -> None:
    """Refuse a graph with operators that ONNX does not have.

    Raises:
        ExportError: tf2onnx left TensorFlow operators in the graph.
    """
    from onnx import defs

    versions = {each.domain: each.version for each in model.opset_import}
    unknown = sorted(
        {
            node.op_type
            for node in _all_nodes(model.graph)
            if not node.domain and not defs.has(node.op_type, versions[""], "")
        }
    )
    if unknown:
        message = (
            f"{recipe.name}: tf2onnx cannot express {', '.join(unknown)} in opset "
            f"{versions['']}. Try a higher opset (at most 18), or take the operator out."
        )
        raise ExportError(message)


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _all_nodes(body)


def _value_info(spec: TensorSpec) -> ValueInfoProto:
    from onnx import TensorProto, helper

    names = {"float64": "DOUBLE", "float32": "FLOAT"}
    code = TensorProto.DataType.Value(names.get(spec.dtype, spec.dtype.upper()))
    return helper.make_tensor_value_info(spec.name, code, spec.shape)


def _compare(recipe: Recipe, kind: str, spec: TensorSpec, found: ValueInfoProto) -> None:
    wanted, got = _value_info(spec).type.tensor_type, found.type.tensor_type
    dims = [each.dim_value or None for each in got.shape.dim]
    fits = wanted.elem_type == got.elem_type
    if got.HasField("shape"):
        fits = fits and len(dims) == len(spec.shape)
        fits = fits and all(
            size is None or size == dim for size, dim in zip(dims, spec.shape, strict=False)
        )
    if not fits:
        from onnx import TensorProto

        shape = ", ".join("?" if size is None else str(size) for size in dims)
        message = (
            f"{recipe.name}: {kind} '{spec.name}': the converted graph contradicts the recipe "
            f"(expected {spec}, got {TensorProto.DataType.Name(got.elem_type).lower()}[{shape}]). "
            "Correct signature in the recipe."
        )
        raise SignatureMismatchError(message)
