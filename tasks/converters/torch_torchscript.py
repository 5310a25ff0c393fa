"""torch → ONNX by TorchScript, which traces one call: older, narrower, and honours old opsets."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from tasks.converters import Converter, ConvertReply, ConvertRequest, onnx_weights, torch_exporting
from tasks.converters.onnx_weights import MODEL
from tasks.converters.torch_exporting import Export
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ExportError
from tasks.domain.passes import PassRun
from tasks.domain.recipe import Recipe
from tasks.isolation import Family

CONVERTER = Converter(
    name="torch-torchscript",
    takes=ModelFormat.TORCH,
    makes=ModelFormat.ONNX,
    family=Family.TORCH,
    rank=20,
    summary="torch.onnx.export(dynamo=False): a trace of one call, opset 9 or later",
    passes=("constant-folding",),
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Write ``model.onnx`` and, for more than 2 GB of weights, ``model.onnx.data``.

    Raises:
        ExportError: The graph cannot be traced, or has no form in the recipe's opset.
        SignatureMismatchError: The model does not answer as the recipe declares.
        VerificationError: The source does not load, or is in training mode.
    """
    scratch = request.folder / "torchscript"
    scratch.mkdir()
    try:
        chosen = CONVERTER.chosen(request)
        export = torch_exporting.prepare(request)
        _trace(request.recipe, export, scratch / MODEL, fold=bool(chosen))
        _write(request, scratch)
    finally:
        shutil.rmtree(scratch)
    stage = "exporter's optimisation"
    return ConvertReply(
        passes=tuple(PassRun(stage=stage, name=name, changed=None) for name in chosen)
    )


def _trace(recipe: Recipe, export: Export, path: Path, *, fold: bool) -> None:
    """Write the graph; above 2 GiB torch puts each weight into a file of its own beside it."""
    import torch

    if isinstance(export.network, torch.export.ExportedProgram):
        message = (
            f"{recipe.name}: torch-torchscript does not take torch.export programs, whose sizes "
            f"are symbols. Use torch-dynamo, with opset 18 or later (got {recipe.opset})."
        )
        raise ExportError(message)
    specs = (*recipe.signature.inputs, *recipe.signature.outputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its age, and about constants in traces
            torch.onnx.export(
                export.network,
                export.inputs,
                path,
                dynamo=False,
                do_constant_folding=fold,
                opset_version=recipe.opset,
                input_names=export.input_names,
                output_names=export.output_names,
                dynamic_axes={spec.name: spec.dynamic_axes for spec in specs},
            )
    except Exception as error:
        message = (
            f"{recipe.name}: torch-torchscript could not export it at opset {recipe.opset} "
            f"({torch_exporting.words(error)})."
        )
        raise ExportError(message) from error


def _write(request: ConvertRequest, scratch: Path) -> None:
    import onnx

    written = scratch / MODEL
    model = onnx.load(written, load_external_data=False)
    torch_exporting.check_opset(model, request.recipe, CONVERTER.name)
    changed = torch_exporting.settle(model.graph, request.recipe)
    if changed or onnx_weights.weight_bytes(model) > onnx_weights.ONE_FILE_BYTES:
        onnx_weights.write_model(model, scratch, request.folder)
    else:
        written.rename(request.folder / MODEL)
