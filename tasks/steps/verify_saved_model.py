"""Verifying a SavedModel: loaded afresh, held to its declared signature, and run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.child import report_progress
from tasks.domain.artifact import TensorSpec
from tasks.domain.errors import SignatureMismatchError, VerificationError
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.runners.saved_model_runner import SERVING, SavedModelRunner
from tasks.steps.draw import draw_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCHES = (1, 2, 3, 8)


class VerifySavedModelRequest(Value):
    """What is to be verified."""

    recipe: Recipe
    model: Path
    """Folder of the SavedModel."""


class VerifySavedModelReply(Value):
    """What was checked."""

    checks: tuple[str, ...]


def verify_saved_model(request: VerifySavedModelRequest) -> VerifySavedModelReply:
    """Load a SavedModel, compare its signature with the recipe's, run it at several batch sizes.

    Raises:
        VerificationError: It does not load, or does not run.
        SignatureMismatchError: Its inputs or outputs are not the declared ones, or not for
            every batch size.
    """
    recipe = request.recipe
    where = f"{recipe.name}: verify"
    report_progress(0.0, "loading the SavedModel")
    runner = SavedModelRunner.load(recipe, request.model, "cpu")
    real = runner.signature()
    if real is None:
        raise SignatureMismatchError(
            f"{where}: {SERVING} does not say how many axes its tensors have (expected "
            f"{recipe.signature.plain}). Export it with another converter."
        )
    _check_side(where, "input", recipe.signature.plain.inputs, real.inputs)
    _check_side(where, "output", recipe.signature.plain.outputs, real.outputs)
    rng = np.random.default_rng(recipe.parity.seed)
    for position, rows in enumerate(_BATCHES):
        report_progress(0.4 + 0.15 * position, f"running batch {rows}")
        _run(where, runner, recipe, rows, rng)
    batches = f"{', '.join(map(str, _BATCHES[:-1]))} and {_BATCHES[-1]}"
    return VerifySavedModelReply(
        checks=(
            f"{runner.runtime}: loads",
            f"{SERVING} as declared: {recipe.signature.plain}",
            f"ran at batch {batches}",
        )
    )


def _check_side(
    where: str, side: str, declared: tuple[TensorSpec, ...], real: tuple[TensorSpec, ...]
) -> None:
    """Compare one side by name: a SavedModel's tensors have no order."""
    by_name = {each.name: each for each in real}
    if by_name.keys() != {each.name for each in declared}:
        raise SignatureMismatchError(
            f"{where}: the {side}s' names are not the declared ones (expected "
            f"{', '.join(each.name for each in declared)}, got {', '.join(by_name) or 'none'}). "
            "Change the recipe's signature, or let the converter name them."
        )
    for spec in declared:
        if by_name[spec.name] != spec:
            wanted, got = (
                str(each).removeprefix(f"{spec.name} ") for each in (spec, by_name[spec.name])
            )
            raise SignatureMismatchError(
                f"{where}: {side} '{spec.name}' is not as declared (expected {wanted}, got {got}). "
                "Change the recipe's signature, or export it with another converter."
            )


def _run(
    where: str, runner: SavedModelRunner, recipe: Recipe, rows: int, rng: np.random.Generator
) -> None:
    inputs = draw_inputs(recipe, rows, rng)
    try:
        answers = runner.run(inputs)
    except VerificationError as error:
        if rows == _BATCHES[0]:
            raise
        raise SignatureMismatchError(
            f"{where}: runs at batch {_BATCHES[0]}, not at batch {rows} (expected any): "
            f"{str(error)[:500]}"
        ) from error
    for spec in recipe.signature.outputs:
        _check_answer(f"{where}: batch {rows}", spec, answers[spec.name], rows)


def _check_answer(where: str, spec: TensorSpec, answer: NDArray[np.generic], rows: int) -> None:
    """Hold one answer to its declared dtype and shape; other free axes may have any size."""
    expected = [rows if dim == "batch" else dim for dim in spec.shape]
    dtype = "string" if answer.dtype.kind == "U" else answer.dtype.name
    fits = len(expected) == answer.ndim and all(
        isinstance(dim, str) or dim == size
        for dim, size in zip(expected, answer.shape, strict=True)
    )
    if not fits or dtype != spec.dtype:
        raise SignatureMismatchError(
            f"{where}: output '{spec.name}' is not as declared (expected {spec.dtype}{expected}, "
            f"got {dtype}{list(answer.shape)}). Export it with another converter."
        )
