"""Stage 2: convert a model into another format."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from tasks.converters import Converter
from tasks.domain.artifact import Cost, ModelArtifact
from tasks.domain.passes import EVERY_PASS, PassPlan, PassRun
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.exporting import ExportJob, write_export
from tasks.progress import StageProgress
from tasks.runtime import STAGE, workshop


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
    progress = StageProgress(f"{recipe.name}: export ({converter.name})")
    folder = shop.new_folder(converter.makes.folder)
    job = ExportJob(recipe, shop.fetch(model.tree), converter, shop.children)
    written = write_export(job, plan, folder, progress)
    progress.finish()
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
        written.cost.seconds,
        f"{written.cost.peak_mb:,.0f}",
    )
    return Exported(
        artifact=artifact,
        converter=converter.name,
        notes=written.notes,
        passes=written.passes,
        cost=written.cost,
    )
