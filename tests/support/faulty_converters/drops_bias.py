"""A converter whose file passes every check of form, and answers wrongly."""

from __future__ import annotations

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.isolation import Family

CONVERTER = Converter(
    name="drops-bias",
    takes=ModelFormat.SKLEARN,
    makes=ModelFormat.ONNX,
    family=Family.SKLEARN,
    rank=900,
    summary="skl2onnx, and then every intercept of a linear classifier is lost",
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Convert soundly, then set the intercepts to zero."""
    import onnx

    from tasks.converters import convert_function

    reply = convert_function("skl2onnx")(request)
    path = request.folder / "model.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "intercepts":
                attribute.floats[:] = [0.0] * len(attribute.floats)
    onnx.save(model, path)
    return reply
