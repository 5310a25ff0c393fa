"""Stage 4: let the candidate answer the same probes, and compare."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

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
from tasks.resume import resumable
from tasks.runners import FAMILIES
from tasks.runtime import STAGE, workshop

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.artifact import ModelFormat
    from tasks.isolation import Answered
    from tasks.steps.answer import AnswerReply


class Comparison(Value):
    """A parity report, passed or not, and what it took."""

    report: ParityReport
    ms_per_row: NonNegativeFloat
    """Milliseconds in which the candidate answers a row, on the machine that compared it."""
    cost: Cost


class _Given(NamedTuple):
    """A candidate's answers: of which format, by what, and where."""

    format: ModelFormat
    runtime: str
    folder: Path


@task(
    name="parity",
    task_run_name="parity {recipe.name} {candidate.artifact.format}",
    tags=["parity"],
    **STAGE,
)
@resumable
def check_parity(recipe: Recipe, reference: Reference, candidate: VerifiedArtifact) -> Comparison:
    """Compare one candidate with the source framework's own answers.

    A failed comparison is a value, so that the report survives to be read.

    Raises:
        VerificationError: The candidate gave no answers to compare.
        IsolationError: The runtime's process died or went over its limits.
        RemoteError: It is compared on a GPU worker, and that gave no answer.
    """
    from tasks.gpu_stages import compare_elsewhere, compare_on_both

    if (compared_there := compare_elsewhere(recipe, reference, candidate)) is not None:
        return compared_there
    shop = workshop()
    format_ = candidate.artifact.format
    progress = StageProgress(f"{recipe.name}: parity {format_.label}")
    call = Call(
        "parity", recipe.name, FAMILIES[format_], recipe.limits, VerificationError, progress
    )
    answers = shop.new_folder("answers")
    answered = ask_for_answers(recipe, reference, candidate, answers, call)
    given = _Given(format_, answered.value.runtime, answers)
    compared = _compared(recipe, reference, given, call)
    progress.finish()
    report = apply_waivers(compared.value, recipe.waivers, today_in_utc())
    began = time.perf_counter()
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
    of_matrix = Cost(seconds=time.perf_counter() - began)
    here = Comparison(
        report=report,
        ms_per_row=answered.value.ms_per_row,
        cost=answered.cost + compared.cost + of_matrix,
    )
    return compare_on_both(recipe, reference, candidate, here)


def ask_for_answers(
    recipe: Recipe, reference: Reference, candidate: VerifiedArtifact, folder: Path, call: Call
) -> Answered[AnswerReply]:
    """Let a candidate answer the probes, in a child process; its answers are in ``folder``.

    Raises:
        VerificationError: It gave none.
        IsolationError: The process died or went over its limits.
    """
    from tasks.steps.answer import AnswerRequest, answer

    shop = workshop()
    request = AnswerRequest(
        recipe=recipe,
        format=candidate.artifact.format,
        model=shop.fetch(candidate.artifact.tree),
        probes=shop.fetch(reference.inputs),
        names=tuple(each.name for each in reference.probes),
        device="cuda" if recipe.device == "cuda" else "cpu",
        folder=folder,
    )
    return shop.children.call(answer, request, call)


def _compared(
    recipe: Recipe, reference: Reference, given: _Given, call: Call
) -> Answered[ParityReport]:
    from tasks.steps.compare import CompareRequest, compare

    shop = workshop()
    request = CompareRequest(
        recipe=recipe,
        candidate=given.format,
        runtime=given.runtime,
        probes=reference.probes,
        reference=shop.fetch(reference.answers),
        answers=given.folder,
        float64=shop.fetch(wide) if (wide := reference.float64.answers) else None,
        float64_words=reference.float64.words,
        labels=reference.labels,
    )
    return shop.children.call(compare, request, call)
