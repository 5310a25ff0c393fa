"""Keras to ONNX by tf2onnx, in a fraction of its usual memory (see ``tasks.tf2onnx_lean``)."""

from __future__ import annotations

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.isolation import Family
from tasks.runners.keras_runner import MODEL_FILE, as_function, load_model
from tasks.tf2onnx_lean.convert import OPSETS, PASSES, check_opset, convert_function

CONVERTER = Converter(
    name="tf2onnx-keras",
    takes=ModelFormat.KERAS,
    makes=ModelFormat.ONNX,
    family=Family.TENSORFLOW,
    rank=10,
    summary="tf2onnx, with large weights kept out of its graph",
    opsets=OPSETS,
    tools=("tf2onnx",),
    code=("tasks.tf2onnx_lean",),
    passes=PASSES,
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Convert ``model.keras``; Functional, Sequential and subclassed models alike.

    Raises:
        ExportError: tf2onnx cannot express the model, or not in the recipe's opset.
        SignatureMismatchError: The model contradicts the recipe.
    """
    check_opset(request.recipe)
    model = load_model(request.source / MODEL_FILE)
    function = as_function(model, request.recipe)
    path = request.folder / "model.onnx"
    passes = CONVERTER.chosen(request)
    converted = convert_function(model, function, request.recipe, path, passes=passes)
    return ConvertReply(notes=converted.notes, passes=converted.passes)
