"""A converter whose file is sound, and asks for a newer reader than it needs."""

from __future__ import annotations

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.isolation import Family

CONVERTER = Converter(
    name="newer-ir",
    takes=ModelFormat.SKLEARN,
    makes=ModelFormat.ONNX,
    family=Family.SKLEARN,
    rank=900,
    summary="skl2onnx, and then the IR version of a later year",
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Convert soundly, then raise the IR version."""
    import onnx

    from tasks.converters import convert_function

    reply = convert_function("skl2onnx")(request)
    path = request.folder / "model.onnx"
    model = onnx.load(path)
    model.ir_version = 12
    onnx.save(model, path)
    return reply
