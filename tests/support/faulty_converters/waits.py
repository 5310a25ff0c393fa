"""A converter that waits until it is let go, so that a test can break something meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.isolation import Family

CONVERTER = Converter(
    name="waits",
    takes=ModelFormat.SKLEARN,
    makes=ModelFormat.ONNX,
    family=Family.SKLEARN,
    rank=903,
    summary="skl2onnx, once the file of TEST_GATE is there",
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Wait, then convert soundly."""
    from tasks.converters import convert_function

    while not Path(os.environ["TEST_GATE"]).exists():
        time.sleep(0.05)
    return convert_function("skl2onnx")(request)
