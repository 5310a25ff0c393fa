"""One converter's attempt: without the passes that change answers, as long as it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prefect.logging import get_run_logger

from tasks.diagnose import Suspect, diagnose
from tasks.domain.errors import ExportError, IsolationError, ReleaseError, VerificationError
from tasks.domain.passes import EVERY_PASS, PassPlan, SkippedPass
from tasks.domain.release import Candidate, Reference
from tasks.export import Exported, export
from tasks.parity import check_parity
from tasks.shrink import shrink_input
from tasks.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.futures import PrefectFuture

    from tasks.converters import Converter
    from tasks.domain.artifact import ModelArtifact
    from tasks.domain.diagnosis import Diagnosis
    from tasks.domain.recipe import Recipe


class Tried(NamedTuple):
    """A candidate, and where its answers went wrong, if they did."""

    candidate: Candidate
    diagnosis: Diagnosis | None
    """Absent for a proven candidate, and where nothing could be found out."""


def attempt(
    recipe: Recipe,
    parent: ModelArtifact,
    converter: Converter,
    reference: PrefectFuture[Reference],
) -> Tried:
    """Convert, verify and compare; a pass that breaks the answers is left out, and all is redone.

    All passes run at first, and the comparison at the end is their check, which costs nothing
    where they are sound. Where it fails, the stages are bisected; where the first that breaks is
    one pass, the export goes on without it, through the whole gate again.

    Raises:
        ExportError: The converter cannot express the model.
        VerificationError: It wrote a file that is not what it claims, and no pass is to blame.
        IsolationError: A process died or went over its limits, and no pass is to blame.
    """
    if refusal := converter.refusal(recipe):
        raise ExportError(refusal)
    plan, skipped = EVERY_PASS, tuple[SkippedPass, ...]()
    while True:
        exported = export(recipe, parent, converter, plan)
        skipped += tuple(_not_run(exported))
        outcome = _check(recipe, exported, reference, skipped)
        if isinstance(outcome, Candidate) and outcome.parity.passed:
            return Tried(outcome, None)
        diagnosis = _diagnose(recipe, parent, converter, exported, outcome, reference.result())
        harmful = _harmful(exported, outcome, diagnosis)
        if harmful is None:
            if isinstance(outcome, ReleaseError):
                raise outcome
            suspect = Suspect(parent=parent, exported=exported, report=outcome.parity)
            return Tried(outcome, shrink_input(recipe, suspect, diagnosis, reference.result()))
        get_run_logger().warning("%s: %s", recipe.name, harmful)
        skipped += (harmful,)
        plan = _without(exported, harmful)


def _check(
    recipe: Recipe,
    exported: Exported,
    reference: PrefectFuture[Reference],
    skipped: tuple[SkippedPass, ...],
) -> Candidate | VerificationError | IsolationError:
    """Put one export through the whole gate; one that does not answer is a value too."""
    try:
        verification = verify(recipe, exported.artifact)
        comparison = check_parity(recipe, reference.result(), verification.verified)
    except (VerificationError, IsolationError) as error:
        return error
    return Candidate(
        verified=verification.verified,
        converter=exported.converter,
        attempts=(),
        parity=comparison.report,
        ms_per_row=comparison.ms_per_row,
        notes=(*exported.notes, *verification.notes),
        skipped=skipped,
        export_cost=exported.cost,
        verify_cost=verification.cost,
        parity_cost=comparison.cost,
    )


def _diagnose(
    recipe: Recipe,
    parent: ModelArtifact,
    converter: Converter,
    exported: Exported,
    outcome: Candidate | ReleaseError,
    reference: Reference,
) -> Diagnosis | None:
    report = outcome.parity if isinstance(outcome, Candidate) else None
    if report is None and not any(each.may_matter for each in exported.passes):
        return None  # the error says what there is to say, and no pass could be left out
    suspect = Suspect(parent=parent, exported=exported, report=report)
    return diagnose(recipe, converter, suspect, reference)


def _harmful(
    exported: Exported, outcome: Candidate | ReleaseError, diagnosis: Diagnosis | None
) -> SkippedPass | None:
    """Return the pass that breaks the model, where it is a pass that does."""
    if diagnosis is None:
        return None
    what = "changed the answers" if isinstance(outcome, Candidate) else "broke the model"
    for each in exported.passes:
        if each.may_matter and (each.stage, each.name) == (diagnosis.stage, diagnosis.step):
            reason = f"{what} ({diagnosis.verdicts[-1].words})"
            return SkippedPass(
                stage=each.stage, name=each.name, converter=exported.converter, reason=reason
            )
    return None


def _not_run(exported: Exported) -> Iterator[SkippedPass]:
    for each in exported.passes:
        if each.error:
            yield SkippedPass(
                stage=each.stage,
                name=each.name,
                converter=exported.converter,
                reason=each.error,
            )


def _without(exported: Exported, harmful: SkippedPass) -> PassPlan:
    """Return the plan with every pass that may matter but the harmful one."""
    left = [
        each
        for each in exported.passes
        if each.may_matter and (each.stage, each.name) != (harmful.stage, harmful.name)
    ]
    return PassPlan.of(tuple(left))
