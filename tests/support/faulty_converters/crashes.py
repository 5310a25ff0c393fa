"""A converter that takes its process along."""

from __future__ import annotations

import ctypes

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.isolation import Family

CONVERTER = Converter(
    name="crashes",
    takes=ModelFormat.SKLEARN,
    makes=ModelFormat.ONNX,
    family=Family.SKLEARN,
    rank=901,
    summary="reads address zero",
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Die of SIGSEGV, after a last word."""
    print(f"converting {request.recipe.name} at address zero", flush=True)  # noqa: T201
    ctypes.string_at(0)
    return ConvertReply()
