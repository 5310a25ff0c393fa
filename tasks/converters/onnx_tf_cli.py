"""ONNX to SavedModel by onnx-tf's command line, ``onnx-tf convert``."""

from __future__ import annotations

import subprocess
import sys

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ExportError
from tasks.isolation import Family

CONVERTER = Converter(
    name="onnx-tf-cli",
    takes=ModelFormat.ONNX,
    makes=ModelFormat.SAVED_MODEL,
    family=Family.TENSORFLOW_LEGACY,
    rank=20,
    summary="onnx-tf 1.10's command line, in a process of its own",
    tools=("onnx-tf",),
    code=("tasks.onnxtf",),
)

_LAST_LINES = 5


def convert(request: ConvertRequest) -> ConvertReply:
    """Convert ``model.onnx`` into a SavedModel by ``python -m tasks.onnxtf.cli convert``.

    Raises:
        ExportError: The command failed; the error ends with the command's last words.
    """
    command = [sys.executable, "-m", "tasks.onnxtf.cli", "convert"]
    command += ["-i", str(request.source / "model.onnx"), "-o", str(request.folder)]
    command += ["--logging_level", "WARNING"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    sys.stderr.write(done.stderr)
    if done.returncode:
        words = "\n".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise ExportError(
            f"onnx-tf convert: exit code {done.returncode}. Its last lines: {words[-1500:]}"
        )
    return ConvertReply()
