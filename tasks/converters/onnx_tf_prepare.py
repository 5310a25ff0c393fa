"""ONNX to SavedModel by onnx-tf's API, ``prepare(model).export_graph(folder)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.isolation import Family

if TYPE_CHECKING:
    from tasks.domain.artifact import TensorSpec

CONVERTER = Converter(
    name="onnx-tf",
    takes=ModelFormat.ONNX,
    makes=ModelFormat.SAVED_MODEL,
    family=Family.TENSORFLOW_LEGACY,
    rank=10,
    summary="onnx-tf 1.10, prepare().export_graph(), mended for today's onnx and TensorFlow",
    tools=("onnx-tf",),
    code=("tasks.onnxtf",),
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Convert ``model.onnx`` into a SavedModel, layout and names unchanged.

    Raises:
        ExportError: The graph holds an operator that onnx-tf cannot express.
    """
    import onnx

    from tasks.onnxtf.backend import load_backend

    backend = load_backend()
    model = onnx.load(request.source / "model.onnx")
    signature = request.recipe.signature
    _declare(model.graph.input, signature.inputs)
    _declare(model.graph.output, signature.outputs)
    backend.prepare(model, logging_level="WARNING").export_graph(str(request.folder))
    return ConvertReply()


def _declare(values: Any, specs: tuple[TensorSpec, ...]) -> None:  # noqa: ANN401 - ValueInfoProtos
    """Write the recipe's shapes where the file leaves them open, so that they are held to."""
    by_name = {spec.name: spec for spec in specs}
    for value in values:
        spec = by_name.get(value.name)
        if spec is None or not value.type.HasField("tensor_type"):
            continue
        dims = value.type.tensor_type.shape.dim
        del dims[:]
        for size in spec.shape:
            dims.add(**{"dim_param" if isinstance(size, str) else "dim_value": size})
