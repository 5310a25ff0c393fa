"""Beside the export: the source's answers in float64, and the true answers of held-out rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import AcquisitionError, IsolationError, VerificationError
from tasks.domain.recipe import HeldOutRows
from tasks.domain.release import Float64
from tasks.isolation import Call, Family
from tasks.progress import StageProgress
from tasks.runners import FAMILIES
from tasks.runtime import workshop
from tasks.sources import HELD_OUT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tasks.domain.recipe import Recipe

_TIMEOUT_SECONDS = 300


def float64_answers(recipe: Recipe, model: Path, probes: Path, names: Sequence[str]) -> Float64:
    """Let the source answer some rows of each probe in float64, in a child of its format.

    Nothing fails here: where float64 is impossible, the answer says why.

    Args:
        recipe: The model's.
        model: The source model's folder.
        probes: Folder of ``<probe>.npz``.
        names: The probes.
    """
    from tasks.steps.float64 import Float64Request, answer_in_float64

    if recipe.source_format is ModelFormat.SAVED_MODEL:
        return Float64(words="no float64: the graph of a SavedModel has its dtypes fixed")
    shop = workshop()
    folder = shop.new_folder("float64")
    request = Float64Request(
        recipe=recipe, model=model, probes=probes, names=tuple(names), folder=folder
    )
    bound = {"timeout_seconds": min(recipe.limits.timeout_seconds, _TIMEOUT_SECONDS)}
    limits = recipe.limits.model_copy(update=bound)
    progress = StageProgress(f"{recipe.name}: float64")
    family = FAMILIES[recipe.source_format]
    call = Call("float64", recipe.name, family, limits, VerificationError, progress)
    try:
        reply = shop.children.call(answer_in_float64, request, call).value
    except (IsolationError, VerificationError) as error:
        words = str(error).partition("\n")[0]
        return Float64(words=f"no float64: {words}")
    finally:
        progress.finish()
    return Float64(words=reply.words, answers=shop.keep(folder, "float64") if reply.rows else None)


def true_labels(recipe: Recipe, model: Path, probes: Path) -> tuple[int | float | str, ...]:
    """Return the true answers to the rows of the probe ``held-out``; none where not known."""
    from tasks.steps.float64 import LabelsRequest, find_labels

    held_out = model / HELD_OUT
    if not isinstance(recipe.parity.real, HeldOutRows) or not held_out.is_file():
        return ()
    request = LabelsRequest(recipe=recipe, probes=probes, held_out=held_out)
    call = Call("labels", recipe.name, Family.LIGHT, recipe.limits, AcquisitionError)
    return workshop().children.call(find_labels, request, call).value.labels
