"""Stage 2: convert a model into another format."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from tasks.converters import Converter, ConvertRequest, convert_function
from tasks.domain.artifact import Cost, ModelArtifact, ModelFormat
from tasks.domain.errors import ExportError
from tasks.domain.passes import PassPlan, PassRun
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.isolation import Call, Family
from tasks.progress import StageProgress
from tasks.resume import resumable
from tasks.runtime import STAGE, workshop

if TYPE_CHECKING:
    from pathlib import Path

EVERY_PASS = PassPlan()


class Exported(Value):
    """A model as a converter wrote it, not yet checked by anyone."""

    artifact: ModelArtifact
    converter: str
    notes: tuple[str, ...]
    passes: tuple[PassRun, ...] = ()
    """Every optimising pass that was asked for, in order."""
    cost: Cost


@task(
    name="export",
    task_run_name="export {recipe.name} by {converter.name}",
    tags=["export"],
    **STAGE,
)
@resumable
def export(
    recipe: Recipe, model: ModelArtifact, converter: Converter, plan: PassPlan = EVERY_PASS
) -> Exported:
    """Convert ``model`` by ``converter`` and store the result.

    The artifact claims the recipe's signature; ``verify`` holds it to that claim.

    Args:
        recipe: What to make.
        model: What to convert.
        converter: By what.
        plan: Which optimising passes to run.

    Raises:
        ExportError: The converter cannot express this model.
        IsolationError: The converter's process died or went over its limits.
        StorageError: The model could not be read, or the result not be stored.
    """
    shop = workshop()
    stage = f"export ({converter.name})"
    progress = StageProgress(f"{recipe.name}: {stage}")
    call = Call(
        stage,
        recipe.name,
        converter.family,
        recipe.limits,
        ExportError,
        progress,
    )
    folder = shop.new_folder(converter.makes.folder)
    request = ConvertRequest(
        recipe=recipe, source=shop.fetch(model.tree), folder=folder, passes=plan.exporter
    )
    reply = shop.children.call(convert_function(converter.name), request, call)
    progress.finish()
    if not any(folder.iterdir()):
        message = f"{call}: the converter wrote no file. Report it to the converter's author."
        raise ExportError(message)
    notes, passes = reply.value.notes, reply.value.passes
    if converter.makes is ModelFormat.ONNX:
        # not in the converter's own child, in which the source may be answering probes by now
        elsewhere = replace(call, family=Family.ONNXRUNTIME)
        passes += _simplify(recipe, folder, elsewhere, plan)
        notes += _lower_ir_version(folder, elsewhere)
    artifact = ModelArtifact(
        model=recipe.name,
        format=converter.makes,
        signature=model.signature,
        tree=shop.keep(folder, f"{converter.makes.folder}-{converter.name}"),
    )
    get_run_logger().info(
        "%s: %s by %s, %.1f MB, %.1f s, peak %s MiB",
        recipe.name,
        converter.makes.label,
        converter.name,
        artifact.tree.size_bytes / 1e6,
        reply.cost.seconds,
        f"{reply.cost.peak_mb:,.0f}",
    )
    return Exported(
        artifact=artifact, converter=converter.name, notes=notes, passes=passes, cost=reply.cost
    )


def _lower_ir_version(folder: Path, call: Call) -> tuple[str, ...]:
    # imported here, since they bring numpy, for which no worker's start should wait
    from tasks.runners.onnxruntime_runner import MODEL
    from tasks.steps.ir_version import LowerIrRequest, lower_ir_version

    request = LowerIrRequest(model=folder / MODEL)
    return workshop().children.call(lower_ir_version, request, call).value.notes


def _simplify(recipe: Recipe, folder: Path, call: Call, plan: PassPlan) -> tuple[PassRun, ...]:
    from tasks.steps.simplify import SimplifyRequest, simplify

    wanted = plan.simplifier
    names = [each for each in recipe.simplify if wanted is None or each in wanted]
    if not names:
        return ()
    request = SimplifyRequest(folder=folder, passes=tuple(names))
    return workshop().children.call(simplify, request, call).value.passes
