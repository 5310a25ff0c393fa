"""Try one converter after another until an export is proven."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prefect.logging import get_run_logger

from flows.attempting import attempt
from tasks.converters import converters_for
from tasks.domain.artifact import Attempt, ModelArtifact, ModelFormat
from tasks.domain.errors import (
    ExportError,
    IsolationError,
    ParityError,
    ReleaseError,
    VerificationError,
)
from tasks.publish import quarantine, show_parity

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture

    from tasks.domain.diagnosis import Diagnosis
    from tasks.domain.parity import ParityReport
    from tasks.domain.recipe import Recipe
    from tasks.domain.release import Candidate, Reference


class _Evidence(NamedTuple):
    """What a failed run leaves behind."""

    reports: tuple[ParityReport, ...]
    diagnoses: tuple[Diagnosis, ...]


def prove(
    recipe: Recipe, parent: ModelArtifact, target: ModelFormat, reference: PrefectFuture[Reference]
) -> Candidate:
    """Convert ``parent`` into ``target``, by the first converter whose work is proven.

    Parity, not the converter's exit code, says who won; each attempt is recorded. Where
    none is proven, the reports go to quarantine.

    Raises:
        ExportError: No converter could express the model.
        VerificationError: The last of those that could wrote a file that is not what it claims.
        ParityError: Some wrote sound files, and none of them answers as the source does.
    """
    attempts: tuple[Attempt, ...] = ()
    reports: tuple[ParityReport, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    errors: list[ReleaseError] = []
    for converter in converters_for(recipe, parent.format, target):
        try:
            candidate, diagnosis = attempt(recipe, parent, converter, reference)
        except (ExportError, VerificationError, IsolationError) as error:
            errors.append(error)
            attempts += (Attempt(converter=converter.name, succeeded=False, reason=str(error)),)
            continue
        reports += (candidate.parity,)
        show_parity(recipe, reports)
        if candidate.parity.passed:
            reason = _why(attempts)
            won = Attempt(
                converter=converter.name,
                succeeded=True,
                reason=reason,
                cost=candidate.export_cost,
            )
            get_run_logger().info("%s: %s, %s", recipe.name, converter.name, reason)
            return candidate.model_copy(update={"attempts": (*attempts, won)})
        failed = ParityError(candidate.parity.summary())
        errors.append(failed)
        diagnoses += (diagnosis,) if diagnosis else ()
        attempts += (
            Attempt(
                converter=converter.name,
                succeeded=False,
                reason=str(failed),
                diagnosis=diagnosis.words if diagnosis else "",
            ),
        )
    raise _failure(recipe, target, attempts, _Evidence(reports, diagnoses), errors)


def _why(attempts: tuple[Attempt, ...]) -> str:
    if not attempts:
        return "first choice, and proven"
    failed = ", ".join(each.converter for each in attempts)
    return f"proven, after {failed} was not" if len(attempts) == 1 else f"proven, after {failed}"


def _in_words(attempt: Attempt) -> str:
    return f"{attempt.reason}; {attempt.diagnosis}" if attempt.diagnosis else attempt.reason


def _failure(
    recipe: Recipe,
    target: ModelFormat,
    attempts: tuple[Attempt, ...],
    evidence: _Evidence,
    errors: list[ReleaseError],
) -> ReleaseError:
    """Return the error to raise, after the reports were put where people can read them."""
    tried = "\n".join(f"- {each.converter}: {_in_words(each)}" for each in attempts)
    head = f"{recipe.name}: no converter made a proven {target.label} model; nothing is published."
    if evidence.reports:
        prefix = quarantine(recipe, evidence.reports, f"{head}\n{tried}", evidence.diagnoses)
        return ParityError(f"{head} The reports are kept under {prefix}.\n{tried}")
    if len(errors) == 1:
        return errors[0]
    return type(errors[-1])(f"{head}\n{tried}")
