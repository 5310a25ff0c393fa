"""Keras to ONNX by tf2onnx's own command line, from a SavedModel: slow, large, independent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ExportError
from tasks.isolation import Family
from tasks.runners.keras_runner import MODEL_FILE, as_function, load_model
from tasks.tf2onnx_lean.convert import OPSETS, check_opset
from tasks.tf2onnx_lean.interface import check_operators, show_interface

if TYPE_CHECKING:
    from tasks.domain.recipe import Recipe

CONVERTER = Converter(
    name="tf2onnx-cli",
    takes=ModelFormat.KERAS,
    makes=ModelFormat.ONNX,
    family=Family.TENSORFLOW,
    rank=20,
    summary="python -m tf2onnx.convert --saved-model",
    opsets=OPSETS,
    tools=("tf2onnx",),
    code=("tasks.tf2onnx_lean",),
)

_SIGNATURE = "serving_default"
_LAST_CHARACTERS = 1_500


def convert(request: ConvertRequest) -> ConvertReply:
    """Export a SavedModel, and convert that by ``python -m tf2onnx.convert``.

    Takes about 7 GB for 100 MB of weights, and no model above 2 GB.

    Raises:
        ExportError: The command failed, or cannot write the recipe's opset.
        SignatureMismatchError: The model contradicts the recipe.
    """
    check_opset(request.recipe)
    path = request.folder / "model.onnx"
    saved = request.folder.with_name(f"{request.folder.name}-saved-model")
    _save(request, saved)
    _run(request.recipe, saved, path)
    _finish(request.recipe, path)
    return ConvertReply()


def _save(request: ConvertRequest, folder: Path) -> None:
    import tensorflow as tf

    model = load_model(request.source / MODEL_FILE)
    module = tf.Module()
    module.variables_of_model = [each.value for each in model.variables]
    function = as_function(model, request.recipe)
    keys = [f"output_{i:03}" for i in range(len(request.recipe.signature.outputs))]

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=function.structured_input_signature[0], autograph=False
    )
    def answer(*tensors: object) -> dict[str, object]:
        return dict(zip(keys, function(*tensors), strict=True))

    tf.saved_model.save(module, str(folder), {_SIGNATURE: answer.get_concrete_function()})


def _run(recipe: Recipe, saved: Path, path: Path) -> None:
    # the command sorts a signature's outputs by key, and the keys here sort as the recipe does
    command = [
        sys.executable, "-m", "tf2onnx.convert",
        "--saved-model", str(saved), "--tag", "serve", "--signature_def", _SIGNATURE,
        "--opset", str(recipe.opset), "--output", str(path),
        "--rename-outputs", ",".join(spec.name for spec in recipe.signature.outputs),
    ]  # fmt: skip
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(  # noqa: S603 - our own interpreter and words
        command, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode or not path.is_file():
        message = (
            f"{recipe.name}: python -m tf2onnx.convert ended with exit code {done.returncode}. "
            f"Its last words:\n{done.stderr[-_LAST_CHARACTERS:]}"
        )
        raise ExportError(message)


def _finish(recipe: Recipe, path: Path) -> None:
    import onnx

    model = onnx.load(path)
    check_operators(model, recipe)
    show_interface(model, recipe)
    onnx.save(model, path)
