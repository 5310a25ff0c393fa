"""A converter that writes old opsets only, and must never be asked for others."""

from __future__ import annotations

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.isolation import Family

CONVERTER = Converter(
    name="writes-old-opsets",
    takes=ModelFormat.SKLEARN,
    makes=ModelFormat.ONNX,
    family=Family.SKLEARN,
    rank=900,
    summary="opsets 9 to 12",
    opsets=range(9, 13),
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Say that it was asked all the same."""
    raise AssertionError(request.recipe.opset)
