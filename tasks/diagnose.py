"""After a failed comparison: at which stage, and by what, did the answers go wrong?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from tasks.converters import Converter
from tasks.domain.artifact import ModelArtifact, ModelFormat
from tasks.domain.diagnosis import Diagnosis, Way
from tasks.domain.errors import ReleaseError
from tasks.domain.parity import ParityReport
from tasks.domain.recipe import Recipe
from tasks.domain.release import Reference
from tasks.domain.value import Value
from tasks.export import Exported
from tasks.exporting import ExportJob
from tasks.runtime import STAGE, workshop

if TYPE_CHECKING:
    from tasks.domain.diagnosis import Bisection


class Suspect(Value):
    """A candidate whose answers are wrong, or that does not answer."""

    parent: ModelArtifact
    """What it was made from: the source, or the proven ONNX model."""
    exported: Exported
    report: ParityReport | None
    """Absent where there were no answers to compare."""


@task(name="diagnose", task_run_name="diagnose {recipe.name} by {converter.name}", **STAGE)
def diagnose(
    recipe: Recipe, converter: Converter, suspect: Suspect, reference: Reference
) -> Diagnosis | None:
    """Find the first stage that breaks the answers, and the first node that does there.

    It never fails itself: what it cannot find leaves the comparison's own verdict as it is.

    Returns:
        None where nothing could be found out; the log says why.
    """
    log = get_run_logger()
    try:
        bisection = _bisect(recipe, converter, suspect, reference)
    except ReleaseError as error:
        log.warning("%s: could not be diagnosed: %s", recipe.name, error)
        return None
    if bisection is None:
        log.warning(
            "%s: %s answers the rows that were wrong rightly when it is asked again, at every "
            "stage; nothing to name.",
            recipe.name,
            converter.name,
        )
        return None
    wrong = bisection.verdicts[-1]
    diagnosis = Diagnosis(
        candidate=suspect.exported.artifact.format,
        converter=converter.name,
        stage=wrong.stage,
        step=wrong.step,
        verdicts=bisection.verdicts,
        words=f"first wrong after {bisection.bad} on probe '{bisection.probe}': {wrong.words}",
    )
    diagnosis = _with_node(recipe, diagnosis, bisection, suspect, reference)
    log.error("%s: %s: %s", recipe.name, converter.name, diagnosis.words)
    return diagnosis


def _bisect(
    recipe: Recipe, converter: Converter, suspect: Suspect, reference: Reference
) -> Bisection | None:
    # imported here, since the steps bring numpy, for which no worker's start should wait
    from tasks.bisecting import Asked, bisect, bisect_onnx, case_for, tensorflow_ways

    shop = workshop()
    scratch = shop.new_folder("bisect")
    artifact = suspect.exported.artifact
    candidate = shop.fetch(artifact.tree)
    asked = Asked(
        recipe=recipe,
        probes=reference.probes,
        inputs=shop.fetch(reference.inputs),
        answers=shop.fetch(reference.answers),
        float64=shop.fetch(wide) if (wide := reference.float64.answers) else None,
    )
    wrong = Way(
        stage="runtime optimisation",
        format=artifact.format,
        model=candidate,
        optimisation="all",
        device="cuda" if recipe.device == "cuda" else "cpu",
    )
    case = case_for(wrong, suspect.report, asked, shop.children, scratch)
    parent = shop.fetch(suspect.parent.tree)
    if artifact.format is ModelFormat.SAVED_MODEL:
        ways = tensorflow_ways(parent, candidate)
        return bisect(ways, case, shop.children, scratch)
    job = ExportJob(recipe, parent, converter, shop.children)
    return bisect_onnx(job, candidate, suspect.exported.passes, case, scratch)


def _with_node(
    recipe: Recipe,
    diagnosis: Diagnosis,
    bisection: Bisection,
    suspect: Suspect,
    reference: Reference,
) -> Diagnosis:
    """Add the first node that goes wrong, and keep what shows it for the quarantine."""
    from tasks.locating import locate
    from tasks.reproducers import with_culprit

    shop = workshop()
    located = locate(
        recipe,
        bisection,
        shop.fetch(suspect.parent.tree),
        suspect.parent.format,
        shop.fetch(reference.inputs),
        shop.fetch(reference.answers),
        shop.children,
        shop.new_folder("locate"),
    )
    return with_culprit(diagnosis, located, shop.folder)
