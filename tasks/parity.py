"""Stage 4: let the candidate answer the same probes, and compare."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger
from pydantic import NonNegativeFloat

from tasks.domain.artifact import Cost, VerifiedArtifact
from tasks.domain.errors import VerificationError
from tasks.domain.parity import ParityReport
from tasks.domain.recipe import Recipe
from tasks.domain.release import Reference
from tasks.domain.value import Value
from tasks.domain.waivers import apply_waivers, today_in_utc
from tasks.isolation import Call
from tasks.matrix import MatrixJob, fill_matrix
from tasks.progress import StageProgress
from tasks.runners import FAMILIES
from tasks.runtime import STAGE, workshop


class Comparison(Value):
    """A parity report, passed or not, and what it took."""

    report: ParityReport
    ms_per_row: NonNegativeFloat
    """Milliseconds in which the candidate answers a row, on the machine that compared it."""
    cost: Cost


@task(
    name="parity",
    task_run_name="parity {recipe.name} {candidate.artifact.format}",
    tags=["parity"],
    **STAGE,
)
def check_parity(recipe: Recipe, reference: Reference, candidate: VerifiedArtifact) -> Comparison:
    """Compare one candidate with the source framework's own answers.

    A failed comparison is a value, so that the report survives to be read.

    Raises:
        VerificationError: The candidate gave no answers to compare.
        IsolationError: The runtime's process died or went over its limits.
    """
    from tasks.steps.answer import AnswerRequest, answer
    from tasks.steps.compare import CompareRequest, compare

    shop = workshop()
    format_ = candidate.artifact.format
    family = FAMILIES[format_]
    progress = StageProgress(f"{recipe.name}: parity {format_.label}")
    call = Call("parity", recipe.name, family, recipe.limits, VerificationError, progress)
    folder = shop.new_folder("answers")
    answered = shop.children.call(
        answer,
        AnswerRequest(
            recipe=recipe,
            format=format_,
            model=shop.fetch(candidate.artifact.tree),
            probes=shop.fetch(reference.inputs),
            names=tuple(each.name for each in reference.probes),
            device="cuda" if recipe.device == "cuda" else "cpu",
            folder=folder,
        ),
        call,
    )
    compared = shop.children.call(
        compare,
        CompareRequest(
            recipe=recipe,
            candidate=format_,
            runtime=answered.value.runtime,
            probes=reference.probes,
            reference=shop.fetch(reference.answers),
            answers=folder,
            float64=shop.fetch(wide) if (wide := reference.float64.answers) else None,
            float64_words=reference.float64.words,
            labels=reference.labels,
        ),
        call,
    )
    progress.finish()
    report = apply_waivers(compared.value, recipe.waivers, today_in_utc())
    job = MatrixJob(
        recipe=recipe,
        model=shop.fetch(candidate.artifact.tree),
        inputs=shop.fetch(reference.inputs),
        answers=shop.fetch(reference.answers),
        children=shop.children,
    )
    report = report.model_copy(update={"matrix": fill_matrix(job, report)})
    log = get_run_logger()
    tell = log.info if report.passed else log.error
    tell("%s: %s", recipe.name, report.summary())
    return Comparison(
        report=report,
        ms_per_row=answered.value.ms_per_row,
        cost=Cost(
            seconds=answered.cost.seconds + compared.cost.seconds,
            peak_mb=max(answered.cost.peak_mb, compared.cost.peak_mb),
        ),
    )
