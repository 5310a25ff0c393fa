"""A converter that takes its time and tells how far it is, but never that it is done."""

from __future__ import annotations

import time

from tasks.child import report_progress
from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.isolation import Family

CONVERTER = Converter(
    name="tells",
    takes=ModelFormat.SKLEARN,
    makes=ModelFormat.ONNX,
    family=Family.SKLEARN,
    rank=904,
    summary="skl2onnx, after some words on its progress",
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Tell three times how far it is, then convert soundly."""
    from tasks.converters import convert_function

    for share in (0.25, 0.5, 0.75):
        time.sleep(0.5)
        report_progress(share, "thinking")
    return convert_function("skl2onnx")(request)
