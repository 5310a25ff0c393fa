"""After a failed comparison: the simplest input that still shows the fault."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from tasks.diagnose import Suspect
from tasks.domain.diagnosis import Diagnosis, Way
from tasks.domain.errors import ReleaseError
from tasks.domain.recipe import Recipe
from tasks.domain.release import Reference
from tasks.runtime import STAGE, workshop


@task(name="shrink", task_run_name="shrink an input of {recipe.name}", **STAGE)
def shrink_input(
    recipe: Recipe, suspect: Suspect, diagnosis: Diagnosis | None, reference: Reference
) -> Diagnosis | None:
    """Add the simplest input that shows the fault to a diagnosis.

    It never fails itself: what it cannot shrink leaves the diagnosis as it is. Where the search is
    off in the recipe, or there is no diagnosis, nothing is shrunk.
    """
    if diagnosis is None or recipe.parity.search == 0:
        return diagnosis
    from tasks.bisecting import Asked, case_for
    from tasks.reproducers import with_shrunk
    from tasks.shrinking import shrink, source_way

    shop, log = workshop(), get_run_logger()
    scratch = shop.new_folder("shrink")
    artifact = suspect.exported.artifact
    probes = shop.fetch(reference.inputs)
    asked = Asked(
        recipe=recipe,
        probes=reference.probes,
        inputs=probes,
        answers=shop.fetch(reference.answers),
    )
    wrong = Way(
        stage="runtime optimisation",
        format=artifact.format,
        model=shop.fetch(artifact.tree),
        optimisation="all",
        device="cuda" if recipe.device == "cuda" else "cpu",
    )
    right = source_way(shop.fetch(suspect.parent.tree), suspect.parent.format)
    try:
        case = case_for(wrong, suspect.report, asked, shop.children, scratch)
        found = shrink(case, right, wrong, probes, shop.children, scratch)
    except ReleaseError as error:
        log.warning("%s: no input could be shrunk: %s", recipe.name, error)
        return diagnosis
    if found is None:
        log.warning("%s: no row alone shows the fault, so none is shrunk", recipe.name)
        return diagnosis
    log.error("%s: shrunk input: %s", recipe.name, found.shrunk.words)
    return with_shrunk(diagnosis, found, shop.folder)
