"""torch → ONNX by ``torch.export``, which captures the graph symbolically."""

from __future__ import annotations

import shutil
from importlib import metadata
from typing import Any

from tasks.converters import (
    Converter,
    ConvertReply,
    ConvertRequest,
    onnx_weights,
    torch_exporting,
    torch_passes,
)
from tasks.converters.torch_exporting import Export
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ExportError
from tasks.domain.recipe import Recipe
from tasks.isolation import Family

_LOWEST_OPSET = 18
"""The exporter's own; asked for less it writes 18 all the same, without an error.

Source: ``torch.onnx._internal.exporter._constants.TORCHLIB_OPSET``.
"""

CONVERTER = Converter(
    name="torch-dynamo",
    takes=ModelFormat.TORCH,
    makes=ModelFormat.ONNX,
    family=Family.TORCH,
    rank=10,
    summary="torch.onnx.export(dynamo=True): a symbolic capture, opset 18 or later",
    opsets=range(_LOWEST_OPSET, 27),
    tools=("onnxscript", "onnx-ir"),
    passes=torch_passes.PASSES,
)

_WRONG_ONNXSCRIPT = {"0.5.4", "0.5.5", "0.5.6"}
"""They fold ResNet's BatchNorm wrongly, in silence.

Source: https://github.com/microsoft/onnxscript/pull/2680, which mends it.
"""


def convert(request: ConvertRequest) -> ConvertReply:
    """Write ``model.onnx`` and, for more than 2 GB of weights, ``model.onnx.data``.

    Raises:
        ExportError: The recipe's opset is below 18, the graph cannot be captured, or the
            installed onnxscript is one that miscalculates.
        SignatureMismatchError: The model does not answer as the recipe declares.
        VerificationError: The source does not load, or is in training mode.
    """
    recipe = request.recipe
    refuse_onnxscript(metadata.version("onnxscript"))
    if recipe.opset < _LOWEST_OPSET:
        message = (
            f"{recipe.name}: torch-dynamo writes opset {_LOWEST_OPSET} or later "
            f"(the recipe asks for {recipe.opset}). Use torch-torchscript."
        )
        raise ExportError(message)
    program = _program(recipe, torch_exporting.prepare(request))
    passes = torch_passes.optimise(program, CONVERTER.chosen(request))
    _write(program, request)
    return ConvertReply(passes=passes)


def refuse_onnxscript(version: str) -> None:
    """Refuse the versions of onnxscript that change a model's answers.

    Raises:
        ExportError: ``version`` is one of them.
    """
    if version in _WRONG_ONNXSCRIPT:
        message = (
            f"torch-dynamo: onnxscript {version} exports BatchNorm wrongly (expected 0.5.7 or "
            "later). Install the locked versions."
        )
        raise ExportError(message)


def _program(recipe: Recipe, export: Export) -> Any:  # noqa: ANN401 - torch.onnx.ONNXProgram
    import torch

    if isinstance(export.network, torch.jit.ScriptModule):
        message = f"{recipe.name}: torch-dynamo does not take TorchScript. Use torch-torchscript."
        raise ExportError(message)
    exported = isinstance(export.network, torch.export.ExportedProgram)
    try:
        return torch.onnx.export(
            export.network,
            export.inputs,
            dynamo=True,
            verbose=False,
            optimize=False,  # by ``torch_passes``, one step at a time
            opset_version=recipe.opset,
            input_names=export.input_names,
            output_names=export.output_names,
            dynamic_shapes=None if exported else _dynamic_shapes(recipe),
        )
    except Exception as error:
        cause = error.__cause__ or error
        message = (
            f"{recipe.name}: torch-dynamo could not export it ({torch_exporting.words(cause)})."
        )
        raise ExportError(message) from error


def _dynamic_shapes(recipe: Recipe) -> tuple[dict[int, Any], ...]:
    """Name the free axes; a name that two inputs share ties their sizes."""
    import torch

    names = {name for spec in recipe.signature.inputs for name in spec.dynamic_axes.values()}
    dims = {name: torch.export.Dim(name) for name in names}
    return tuple(
        {axis: dims[name] for axis, name in spec.dynamic_axes.items()}
        for spec in recipe.signature.inputs
    )


def _write(program: Any, request: ConvertRequest) -> None:  # noqa: ANN401
    """Let torch write the weights beside the model, which copies none of them, then settle."""
    import onnx

    scratch = request.folder / "dynamo"
    scratch.mkdir()
    try:
        program.save(scratch / onnx_weights.MODEL, external_data=True)
        model = onnx.load(scratch / onnx_weights.MODEL, load_external_data=False)
        torch_exporting.check_opset(model, request.recipe, CONVERTER.name)
        torch_exporting.settle(model.graph, request.recipe)
        onnx_weights.write_model(model, scratch, request.folder)
    finally:
        shutil.rmtree(scratch)
