"""torch's own verification, as its export really does it, of a file with a planted fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.converters import ConvertRequest
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value


class VerifyRequest(Value):
    """What is exported, and what is put in the place of it."""

    recipe: Recipe
    source: Path
    planted: Path
    """Folder of the spoilt ``model.onnx``."""


class Verified(Value):
    """What torch said against the file; empty where it let it pass."""

    words: str


def verify_by_torch(request: VerifyRequest) -> Verified:
    """Export with ``verify=True``; the fault is there when the exporter's optimisation ends."""
    import contextlib
    import io
    import logging

    import onnx_ir
    import torch

    from tasks.converters.torch_exporting import prepare

    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    def spoil(program: Any) -> None:
        program.model = onnx_ir.load(request.planted / "model.onnx")

    export = prepare(
        ConvertRequest(recipe=request.recipe, source=request.source, folder=request.planted)
    )
    logger = logging.getLogger("torch.onnx._internal.exporter._core")
    listener = Listener(logging.WARNING)
    logger.addHandler(listener)
    sound, printed = torch.onnx.ONNXProgram.optimize, io.StringIO()
    torch.onnx.ONNXProgram.optimize = spoil
    try:
        with contextlib.redirect_stdout(printed):
            torch.onnx.export(
                export.network, export.inputs, dynamo=True, optimize=True, verify=True,
                verbose=True, opset_version=request.recipe.opset,
                input_names=export.input_names, output_names=export.output_names,
            )  # fmt: skip
    finally:
        torch.onnx.ONNXProgram.optimize = sound
        logger.removeHandler(listener)
    said += [line for line in printed.getvalue().splitlines() if "❌" in line]
    return Verified(words="; ".join(said))
