"""A converter that is sound until it optimises: each of its passes is wrong in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.domain.passes import PassRun
from tasks.isolation import Family

if TYPE_CHECKING:
    from collections.abc import Callable

CONVERTER = Converter(
    name="harmful-passes",
    takes=ModelFormat.SKLEARN,
    makes=ModelFormat.ONNX,
    family=Family.SKLEARN,
    rank=905,
    summary="skl2onnx, and then four passes of which one is sound",
    passes=("names-nodes", "raises", "loses-an-intercept", "widens-an-output", "does-nothing"),
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Convert soundly, then run the passes that are asked for."""
    import onnx

    from tasks.converters import convert_function

    convert_function("skl2onnx")(request.model_copy(update={"passes": None}))
    path = request.folder / "model.onnx"
    model = onnx.load(path)
    runs = []
    for name in CONVERTER.chosen(request):
        before = model.SerializeToString()
        error = ""
        try:
            _PASSES[name](model)
        except ZeroDivisionError as raised:
            error = f"it raised ZeroDivisionError: {raised}"
        runs.append(
            PassRun(
                stage="exporter's optimisation",
                name=name,
                changed=model.SerializeToString() != before,
                error=error,
            )
        )
    onnx.save(model, path)
    return ConvertReply(passes=tuple(runs))


def _name_nodes(model: Any) -> None:
    for i, node in enumerate(model.graph.node):
        node.name = f"node-{i}"


def _raise(model: Any) -> None:
    raise ZeroDivisionError(model.graph.name and "division by zero")


def _lose(model: Any) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "intercepts":
                attribute.floats[0] = 0.0


def _widen(model: Any) -> None:
    """Declare one class more than the model has, which no check of form may pass."""
    for each in model.graph.output:
        if each.name == "probabilities":
            each.type.tensor_type.shape.dim[1].dim_value += 1


_PASSES: dict[str, Callable[[Any], None]] = {
    "names-nodes": _name_nodes,
    "raises": _raise,
    "loses-an-intercept": _lose,
    "widens-an-output": _widen,
    "does-nothing": lambda _model: None,
}
