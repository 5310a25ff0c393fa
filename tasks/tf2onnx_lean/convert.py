"""From a TensorFlow function to an ONNX file."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.domain.errors import ExportError, SignatureMismatchError
from tasks.domain.passes import PassRun
from tasks.tf2onnx_lean.fold import fold
from tasks.tf2onnx_lean.freeze import FrozenGraph, freeze
from tasks.tf2onnx_lean.fuse import fuse
from tasks.tf2onnx_lean.interface import check_operators, show_interface
from tasks.tf2onnx_lean.operators import handlers
from tasks.tf2onnx_lean.write import LARGEST_FILE, write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from onnx import ModelProto
    from tensorflow.python.trackable.base import Trackable
    from tensorflow.types.experimental import ConcreteFunction

    from tasks.domain.recipe import Recipe

OPSETS = range(13, 19)
"""What tf2onnx 1.17 can write: below 13 axes are attributes, above 18 it refuses."""

_OPTIMISERS = (
    "optimize_transpose",
    "remove_redundant_upsample",
    "fold_constants",
    "const_dequantize_optimizer",
    "loop_optimizer",
    "merge_duplication",
    "reshape_optimizer",
    "global_pool_optimizer",
    "q_dq_optimizer",
    "remove_identity",
    "remove_back_to_back",
    "einsum_optimizer",
)
"""tf2onnx's own, in its order. Source: tf2onnx 1.17, ``tf2onnx/optimizer/__init__.py``."""

PASSES = (*_OPTIMISERS, "fold-weights", "fuse-scales")
"""What can be left out: tf2onnx's optimisers, then ``fold`` and ``fuse`` of this package."""

_log = logging.getLogger(__name__)


class Converted(NamedTuple):
    """What is to be told of a conversion."""

    notes: tuple[str, ...]
    """For the manifest."""
    passes: tuple[PassRun, ...]


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
    passes: Sequence[str] = PASSES,
) -> Converted:
    """Write a concrete function to ``path`` as ONNX, with the recipe's interface.

    Args:
        owner: The model that owns the function's variables.
        function: A concrete function whose inputs and outputs come in the recipe's order.
        recipe: Names, shapes and opset.
        path: ``model.onnx``; large weights go to ``model.onnx.data`` beside it.
        largest_file: See ``write_model``.
        passes: Which of ``PASSES`` to run.

    Raises:
        ExportError: tf2onnx cannot express the function, or not in this opset.
        SignatureMismatchError: The graph contradicts the recipe.
    """
    check_opset(recipe)
    job = _Job(owner, function, recipe, path, largest_file, passes)
    try:
        ran = _convert(job, lift=True)
    except SignatureMismatchError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the second way tells
        _log.warning("converting with weights outside the graph failed: %s", error)
    else:
        return Converted((), ran)
    # Some of tf2onnx's rewriters (recurrent layers of Keras 2) want to see the weights.
    try:
        ran = _convert(job, lift=False)
    except ValueError as error:
        raise ExportError(f"{recipe.name}: tf2onnx: {error}") from error
    note = "tf2onnx had to see the weights of this model: it took the memory that it takes"
    return Converted((note,), ran)


class _Job(NamedTuple):
    """What ``convert_function`` was called with."""

    owner: Trackable
    function: ConcreteFunction
    recipe: Recipe
    path: Path
    largest_file: int
    passes: Sequence[str]


def _convert(job: _Job, *, lift: bool) -> tuple[PassRun, ...]:
    frozen = freeze(job.owner, job.function, lift=lift)
    changed = dict.fromkeys(job.passes, False)
    model = _to_onnx(frozen, job.recipe, changed)
    check_operators(model, job.recipe)
    weights = {each.name: each for each in frozen.weights}
    for name, rewrite in (("fold-weights", fold), ("fuse-scales", fuse)):
        if name in changed:
            before = len(model.graph.node)
            weights = rewrite(model.graph, weights)
            changed[name] = (
                len(model.graph.node) != before
            )  # each takes nodes away, or does nothing
    show_interface(model, job.recipe)
    write_model(model, weights, job.path, job.largest_file)
    return tuple(
        PassRun(stage="exporter's optimisation", name=name, changed=changed[name])
        for name in PASSES
        if name in changed
    )


def _watched_optimisers(changed: dict[str, bool]) -> dict[str, Callable[[], Any]]:
    """Return the chosen ones of tf2onnx's optimisers, each of which tells when it did something."""
    from tf2onnx.optimizer import _get_optimizers

    def watch(name: str, factory: Callable[[], Any]) -> Any:  # noqa: ANN401
        optimiser = factory()
        optimise = optimiser.optimize

        def optimise_and_tell(graph: Any, iteration: int) -> Any:  # noqa: ANN401
            optimised = optimise(graph, iteration)
            changed[name] |= bool(optimiser.graph_been_opt)
            return optimised

        optimiser.optimize = optimise_and_tell
        return optimiser

    every = _get_optimizers().items()
    return {name: partial(watch, name, factory) for name, factory in every if name in changed}


def _to_onnx(frozen: FrozenGraph, recipe: Recipe, changed: dict[str, bool]) -> ModelProto:
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
            optimizers=_watched_optimisers(changed),
        )
    return model
