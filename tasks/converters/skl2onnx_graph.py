"""skl2onnx's graph, fitted to the recipe: names, order, dtypes, shapes and opset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.domain.errors import ExportError
from tasks.runners.sklearn_files import only_input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tasks.domain.artifact import TensorSpec
    from tasks.domain.recipe import Recipe
    from tasks.domain.signature import OutputSpec

Proto: TypeAlias = Any
"""A message of onnx.proto, whose package has no types."""


def present(recipe: Recipe, model: Proto, outputs: list[int]) -> None:
    """Give the graph the recipe's outputs, in its order, and name the dynamic axes."""
    from onnx import helper

    graph, made = model.graph, list(model.graph.output)
    for each in made:
        if not each.type.HasField("tensor_type"):
            message = (
                f"{recipe.name}: skl2onnx's output '{each.name}' is a list of dictionaries "
                "(expected a tensor). Replace the model's last estimator."
            )
            raise ExportError(message)
    del graph.output[:]
    for spec, position in zip(recipe.signature.outputs, outputs, strict=True):
        if position >= len(made):
            message = (
                f"{recipe.name}: skl2onnx gives no {spec.role} for output '{spec.name}'. Change "
                "its role, or replace the model's last estimator."
            )
            raise ExportError(message)
        _append_output(recipe.name, graph, spec, made[position])
    spec_in = only_input(recipe)
    named = helper.make_tensor_value_info(spec_in.name, _element_type(spec_in), spec_in.shape)
    graph.input[0].CopyFrom(named)
    _drop_unused(graph)


def _append_output(model: str, graph: Proto, spec: OutputSpec, made: Proto) -> None:
    """Append the nodes that lead from skl2onnx's tensor ``made`` to the declared output."""
    from onnx import TensorProto, helper, numpy_helper

    wanted, got = _element_type(spec), made.type.tensor_type.elem_type
    if TensorProto.STRING in {wanted, got} and wanted != got:
        message = (
            f"{model}: output '{spec.name}': the model answers "
            f"{TensorProto.DataType.Name(got).lower()} (expected {spec.dtype}). Change the "
            "dtype in the recipe."
        )
        raise ExportError(message)
    tensor = made.name
    for operator, constant, attributes in _reshaping(spec, made.type.tensor_type.shape.dim):
        names = [tensor, f"{operator}/{spec.name}/constant"]
        graph.initializer.append(numpy_helper.from_array(constant, names[1]))
        tensor = f"{operator}/{spec.name}"
        graph.node.append(helper.make_node(operator, names, [tensor], **attributes))
    # skl2onnx says float64 of trees too, which answer in float32
    cast = {"to": wanted} if wanted != got or got == TensorProto.DOUBLE else {}
    last = helper.make_node("Cast" if cast else "Identity", [tensor], [spec.name], **cast)
    graph.node.append(last)
    graph.output.append(helper.make_tensor_value_info(spec.name, wanted, spec.shape))


def _reshaping(
    spec: OutputSpec, dims: Sequence[Proto]
) -> Iterator[tuple[str, NDArray[np.int64], dict[str, int]]]:
    """Yield operators, constants and attributes that turn ``dims`` into the declared shape."""
    import numpy as np

    rank = len(dims)
    if spec.role == "logits" and rank > 1 and spec.shape[1:] in {(), (1,)}:
        # Of two classes scikit-learn gives the second one's score alone, skl2onnx both.
        yield "Gather", np.array(-1, np.int64), {"axis": 1}
        rank -= 1
    if rank != len(spec.shape):
        fixed = [each for each in spec.shape[1:] if isinstance(each, int)]
        yield "Reshape", np.array([-1, *fixed], np.int64), {}


def _element_type(spec: TensorSpec) -> int:
    import numpy as np
    from onnx import TensorProto, helper

    if spec.dtype == "string":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)))


def _drop_unused(graph: Proto) -> None:
    """Remove the nodes that no output needs, such as scores where only labels are asked for."""
    needed = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def set_opset(recipe: Recipe, model: Proto) -> None:
    """Declare the opset that was asked for; skl2onnx may declare one twice, or a lower one.

    A lower one may be raised where each operator means the same in both.
    """
    from onnx import defs, helper

    opsets = {each.domain: each.version for each in model.opset_import}
    made = opsets.get("", recipe.opset)
    operators = sorted({node.op_type for node in model.graph.node if not node.domain})
    for name in operators if made != recipe.opset else []:
        versions = [defs.get_schema(name, each).since_version for each in (made, recipe.opset)]
        if versions[0] != versions[1]:
            message = (
                f"{recipe.name}: skl2onnx wrote {name} of opset {made} (expected "
                f"{recipe.opset}), which means something else there. Ask for opset {made}."
            )
            raise ExportError(message)
    used = {node.domain for node in model.graph.node} - {""}
    kept = {"": recipe.opset} | {domain: opsets[domain] for domain in sorted(used)}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*each) for each in kept.items())
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
