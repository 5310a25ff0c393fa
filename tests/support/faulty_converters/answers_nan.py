"""A converter whose model answers NaN for one class."""

from __future__ import annotations

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.isolation import Family

CONVERTER = Converter(
    name="answers-nan",
    takes=ModelFormat.SKLEARN,
    makes=ModelFormat.ONNX,
    family=Family.SKLEARN,
    rank=902,
    summary="skl2onnx, and then one intercept is NaN",
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Convert soundly, then poison one intercept."""
    import onnx

    from tasks.converters import convert_function

    reply = convert_function("skl2onnx")(request)
    path = request.folder / "model.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "intercepts":
                attribute.floats[0] = float("nan")
    onnx.save(model, path)
    return reply
