"""Let one model answer every probe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import NonNegativeFloat

from tasks.arrays import load_arrays, save_arrays
from tasks.child import report_progress
from tasks.domain.artifact import ModelFormat
from tasks.domain.diagnosis import Optimisation
from tasks.domain.errors import ReleaseError, SignatureMismatchError, VerificationError
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.runners import Device, Runner, open_runner
from tasks.steps.axes import WHOLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

BATCH_BYTES = 5_000_000
"""Input of one call to the model: eight pictures of 224 x 224 in float32."""


class AnswerRequest(Value):
    """Which model answers what."""

    recipe: Recipe
    format: ModelFormat
    model: Path
    """The model's folder."""
    probes: Path
    """Folder of ``<probe>.npz``."""
    names: tuple[str, ...]
    """The probes to answer."""
    device: Device
    folder: Path
    """Empty folder for the answers, ``<probe>.npz`` each."""
    optimisation: Optimisation = "all"
    """How far ONNX Runtime may rewrite the graph."""


class AnswerReply(Value):
    """Who answered, and how fast."""

    runtime: str
    ms_per_row: NonNegativeFloat
    """Milliseconds a row, of the probe that was answered fastest."""


def answer(request: AnswerRequest) -> AnswerReply:
    """Run the model on every probe and write its answers.

    Rows go to the model in batches small enough to bound its memory, cut alike for every
    format.

    Raises:
        VerificationError: The model does not load, or does not answer a probe.
        SignatureMismatchError: Its outputs are not those that the recipe declares.
        ConfigurationError: The device is not there.
    """
    where = f"{request.recipe.name}: {request.format.label}"
    try:
        runner = open_runner(
            request.recipe, request.format, request.model, request.device, request.optimisation
        )
    except ReleaseError:
        raise
    except Exception as error:
        raise VerificationError(
            f"{where}: the model does not load: {_short(error)}. Export it anew."
        ) from error
    paces = []
    for i, name in enumerate(request.names):
        report_progress(i / len(request.names), f"answering {name}")
        inputs = load_arrays(request.probes / f"{name}.npz")
        began = time.perf_counter()
        whole = name.startswith(WHOLE)
        probe = f"{where}: probe '{name}'"
        answers = answer_probe(runner, inputs, probe, request.recipe, whole=whole)
        paces.append((time.perf_counter() - began) / len(next(iter(inputs.values()))))
        save_arrays(request.folder / f"{name}.npz", answers)
    report_progress(1.0, "answered")
    return AnswerReply(runtime=runner.runtime, ms_per_row=round(1e3 * min(paces, default=0.0), 4))


def answer_probe(
    runner: Runner, inputs: Arrays, where: str, recipe: Recipe, *, whole: bool = False
) -> Arrays:
    """Return the model's answers to all rows of one probe.

    Args:
        runner: The loaded model.
        inputs: By name, first axis the rows; at least one row.
        where: The first words of an error.
        recipe: What the answers must look like.
        whole: Whether the rows go in one batch, however large it is.

    Raises:
        VerificationError: The runtime does not answer.
        SignatureMismatchError: Its outputs, or their rows, are not the declared ones.
    """
    rows = len(next(iter(inputs.values())))
    row_bytes = sum(each.nbytes for each in inputs.values()) / rows
    step = rows if whole else max(1, min(rows, int(BATCH_BYTES // max(1, row_bytes))))
    parts = []
    for start in range(0, rows, step):
        batch = {name: each[start : start + step] for name, each in inputs.items()}
        try:
            part = runner.run(batch)
        except ReleaseError:
            raise
        except Exception as error:
            raise VerificationError(
                f"{where}: {runner.runtime} does not answer rows {start} to "
                f"{min(start + step, rows) - 1}: {_short(error)}."
            ) from error
        _check(recipe, part, min(step, rows - start), where)
        parts.append(part)
    names = [spec.name for spec in recipe.signature.outputs]
    if len(parts) == 1:
        return {name: np.asarray(parts[0][name]) for name in names}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _check(recipe: Recipe, part: Arrays, rows: int, where: str) -> None:
    declared = [spec.name for spec in recipe.signature.outputs]
    if set(part) != set(declared):
        raise SignatureMismatchError(
            f"{where}: other outputs than the recipe's (expected {', '.join(declared)}, "
            f"got {', '.join(part) or 'none'}). Correct the recipe, or use another converter."
        )
    for spec in recipe.signature.outputs:
        shape = np.shape(part[spec.name])
        # a free first axis is the batch, whatever else the recipe calls it
        if not shape or (isinstance(spec.shape[0], str) and shape[0] != rows):
            raise SignatureMismatchError(
                f"{where}: output '{spec.name}' does not have one row for each of the input's "
                f"(expected {rows}, got shape {shape}). Its batch axis was lost on the way."
            )


def _short(error: BaseException, limit: int = 500) -> str:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return (words if len(words) <= limit else f"{words[:limit]} …").rstrip(". ")
