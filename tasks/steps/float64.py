"""Let the source answer some rows in float64, and find the true answers of held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import NonNegativeInt

from tasks.arrays import load_arrays, save_arrays
from tasks.child import report_progress
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import VerificationError
from tasks.domain.noise import A_ROUNDING
from tasks.domain.recipe import HeldOutRows, Recipe
from tasks.domain.value import Value
from tasks.steps.answer import answer_probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.runners import Runner

    Arrays = dict[str, NDArray[Any]]

ROWS = "rows of the probe"
"""Under this name each file says which rows were answered; no output can be called so."""

MOVED = "moved inputs, "
"""Names that begin so hold the answers to inputs that are off by a rounding."""

_ROWS_A_PROBE, _HEAVY_ROWS_A_PROBE = 64, 1
_HEAVY_PROBES = 8
_HEAVY_BYTES = 20_000_000
"""A source with more weights than this (MobileNetV2 has 14 MB, ResNet-50 102 MB), or
``_HEAVY_ROW_BYTES`` of input a row, answers one row of a probe, of eight probes: enough for a
thousand logits each, and little beside its export. Float64 takes two to three times float32's."""
_HEAVY_ROW_BYTES = 400_000
"""A picture of 224 x 224 in float32 has 602 kB, one of 160 x 160 has 307 kB."""


class Float64Request(Value):
    """What the source answers again, wider."""

    recipe: Recipe
    model: Path
    """The source model's folder."""
    probes: Path
    """Folder of ``<probe>.npz``."""
    names: tuple[str, ...]
    folder: Path
    """Empty folder for the answers, ``<probe>.npz`` each."""


class Float64Reply(Value):
    """What was answered, or why nothing was."""

    words: str
    rows: NonNegativeInt = 0


class LabelsRequest(Value):
    """Of which rows the true answers are wanted."""

    recipe: Recipe
    probes: Path
    held_out: Path
    """What the training kept back."""


class LabelsReply(Value):
    """The true answers to the rows of the probe ``held-out``; none where they are not known."""

    labels: tuple[int | float | str, ...]


def answer_in_float64(request: Float64Request) -> Float64Reply:
    """Let the source answer the same float32 numbers, widened, in float64.

    Where it cannot, nothing fails: the reply says why, and the tolerance profile decides.
    """
    from tasks.runners.float64 import open_float64

    if not any(each.dtype in ("float16", "float32") for each in request.recipe.signature.outputs):
        return Float64Reply(words="no float64: no output is of float32")
    try:
        runner = open_float64(request.recipe, request.model)
        total = 0
        for i, (name, rows, inputs) in enumerate(_chosen(request)):
            report_progress(i / len(request.names), f"answering {name} in float64")
            where = f"{request.recipe.name}: probe '{name}' in float64"
            answers = answer_probe(runner, inputs, where, request.recipe)
            wide = {key: each for key, each in answers.items() if each.dtype == np.float64}
            if not wide:
                return Float64Reply(words="no float64: it answers in float32 whatever it is given")
            moved = _moved(runner, inputs, where, request.recipe)
            save_arrays(request.folder / f"{name}.npz", wide | moved | {ROWS: rows})
            total += len(rows)
    except VerificationError as error:
        return Float64Reply(words=f"no float64: {_short(error)}")
    except Exception as error:  # noqa: BLE001 - a source that cannot is no fault of its candidate
        return Float64Reply(words=f"no float64: {type(error).__name__}: {_short(error)}")
    return Float64Reply(words=f"float64 by {runner.runtime} on {total} rows", rows=total)


def _moved(runner: Runner, inputs: Arrays, where: str, recipe: Recipe) -> Arrays:
    """Return the answers to inputs that are off by a rounding, of scikit-learn alone.

    It computes in float64 whatever it is given, so that its float32 answers show no noise.
    """
    if recipe.source_format is not ModelFormat.SKLEARN:
        return {}
    random = np.random.default_rng(0)
    off = {
        name: each * (1 + A_ROUNDING * random.choice([-1.0, 1.0], each.shape))
        if each.dtype == np.float64
        else each
        for name, each in inputs.items()
    }
    answers = answer_probe(runner, off, where, recipe)
    return {f"{MOVED}{key}": each for key, each in answers.items() if each.dtype == np.float64}


def _chosen(request: Float64Request) -> list[tuple[str, NDArray[np.intp], Arrays]]:
    """Return the rows to answer of each probe, evenly spread, with their inputs widened."""
    weights = sum(path.stat().st_size for path in request.model.rglob("*") if path.is_file())
    chosen: list[tuple[str, NDArray[np.intp], Arrays]] = []
    for name in request.names:
        inputs = load_arrays(request.probes / f"{name}.npz")
        count = len(next(iter(inputs.values())))
        row_bytes = sum(each.nbytes for each in inputs.values()) / count
        heavy = weights > _HEAVY_BYTES or row_bytes > _HEAVY_ROW_BYTES
        if heavy and len(chosen) == _HEAVY_PROBES:
            break
        rows = spread_rows(count, _HEAVY_ROWS_A_PROBE if heavy else _ROWS_A_PROBE)
        chosen.append((name, rows, {key: _wide(each[rows]) for key, each in inputs.items()}))
    return chosen


def spread_rows(count: int, at_most: int) -> NDArray[np.intp]:
    """Return up to ``at_most`` of ``count`` rows, ascending and evenly spread, the first one in."""
    if count <= at_most:
        return np.arange(count)
    return np.unique(np.arange(at_most) * count // at_most)


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64) if array.dtype in (np.float16, np.float32) else array


def find_labels(request: LabelsRequest) -> LabelsReply:
    """Return the true answers of the held-out probe, if its rows are the first that were kept."""
    kept = load_arrays(request.held_out)
    probe = request.probes / f"{HeldOutRows.model_fields['kind'].default}.npz"
    if "labels" not in kept or not probe.is_file():
        return LabelsReply(labels=())
    inputs = load_arrays(probe)
    count = len(next(iter(inputs.values())))
    same = all(np.array_equal(each, kept[name][:count]) for name, each in inputs.items())
    return LabelsReply(labels=tuple(kept["labels"][:count].tolist()) if same else ())


def _short(error: Exception, limit: int = 200) -> str:
    words = " ".join(str(error).split()).rstrip(". ")
    return words if len(words) <= limit else f"{words[:limit]} …"
