"""From a TensorFlow function to an ONNX file."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tasks.domain.errors import ExportError, SignatureMismatchError
from tasks.tf2onnx_lean.fold import fold
from tasks.tf2onnx_lean.freeze import FrozenGraph, freeze
from tasks.tf2onnx_lean.fuse import fuse
from tasks.tf2onnx_lean.interface import check_operators, show_interface
from tasks.tf2onnx_lean.operators import handlers
from tasks.tf2onnx_lean.write import LARGEST_FILE, write_model

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto
    from tensorflow.python.trackable.base import Trackable
    from tensorflow.types.experimental import ConcreteFunction

    from tasks.domain.recipe import Recipe

OPSETS = range(13, 19)
"""What tf2onnx 1.17 can write: below 13 axes are attributes, above 18 it refuses."""

_log = logging.getLogger(__name__)


def check_opset(recipe: Recipe) -> None:
    """Refuse an opset that tf2onnx cannot write.

    Raises:
        ExportError: It is below 13 or above 18.
    """
    if recipe.opset not in OPSETS:
        message = (
            f"{recipe.name}: opset: tf2onnx writes opsets {OPSETS[0]} to {OPSETS[-1]} "
            f"(expected one of these, got {recipe.opset}). Choose one in the recipe."
        )
        raise ExportError(message)


def convert_function(
    owner: Trackable,
    function: ConcreteFunction,
    recipe: Recipe,
    path: Path,
    largest_file: int = LARGEST_FILE,
) -> tuple[str, ...]:
    """Write a concrete function to ``path`` as ONNX, with the recipe's interface.

    Args:
        owner: The model that owns the function's variables.
        function: A concrete function whose inputs and outputs come in the recipe's order.
        recipe: Names, shapes and opset.
        path: ``model.onnx``; large weights go to ``model.onnx.data`` beside it.
        largest_file: See ``write_model``.

    Returns:
        Notes for the manifest.

    Raises:
        ExportError: tf2onnx cannot express the function, or not in this opset.
        SignatureMismatchError: The graph contradicts the recipe.
    """
    check_opset(recipe)
    try:
        _convert(owner, function, recipe, path, largest_file, lift=True)
    except SignatureMismatchError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the second way tells
        _log.warning("converting with weights outside the graph failed: %s", error)
    else:
        return ()
    # Some of tf2onnx's rewriters (recurrent layers of Keras 2) want to see the weights.
    try:
        _convert(owner, function, recipe, path, largest_file, lift=False)
    except ValueError as error:
        raise ExportError(f"{recipe.name}: tf2onnx: {error}") from error
    return ("tf2onnx had to see the weights of this model: it took the memory that it takes",)


def _convert(
    owner: Trackable,
    function: ConcreteFunction,
    recipe: Recipe,
    path: Path,
    largest_file: int,
    *,
    lift: bool,
) -> None:
    frozen = freeze(owner, function, lift=lift)
    model = _to_onnx(frozen, recipe)
    check_operators(model, recipe)
    weights = {each.name: each for each in frozen.weights}
    weights = fuse(model.graph, fold(model.graph, weights))
    show_interface(model, recipe)
    write_model(model, weights, path, largest_file)


def _to_onnx(frozen: FrozenGraph, recipe: Recipe) -> ModelProto:
    import tensorflow as tf
    from tf2onnx.convert import _convert_common

    names = [each.name for each in recipe.signature.outputs]
    renamed = dict(zip(frozen.outputs, names, strict=True))
    for tensor, spec in zip(frozen.all_inputs, recipe.signature.inputs, strict=True):
        renamed[tensor] = spec.name
    lifted = {f"{each.name}:0": each.name for each in frozen.weights}
    with tf.device("/cpu:0"):
        model, _ = _convert_common(
            frozen.graph_def,
            name=recipe.name,
            continue_on_error=False,
            opset=recipe.opset,
            input_names=[*frozen.inputs, *lifted],
            output_names=list(frozen.outputs),
            tensors_to_rename=renamed | lifted,
            initialized_tables=frozen.tables,
            custom_op_handlers=handlers(),
        )
    return model
