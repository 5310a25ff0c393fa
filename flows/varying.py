"""Make the variants that a recipe asks for, and release those that are worth their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.logging import get_run_logger

from tasks.domain.errors import ExportError, IsolationError, VariantError, VerificationError
from tasks.domain.variant_rules import task_fault, worth
from tasks.domain.variants import VariantOutcome
from tasks.vary import judge, quarantine_variants, time_beside, vary
from tasks.verify import verify

if TYPE_CHECKING:
    from tasks.domain.release import Candidate, Reference, SourceModel
    from tasks.domain.variants import VariantSpec


def make_variants(
    source: SourceModel, parent: Candidate, reference: Reference
) -> tuple[VariantOutcome, ...]:
    """Make each variant of a proven ONNX model, hold it to the source, and weigh what it gains.

    One that cannot be made, strays from the source, or is neither smaller nor faster than its
    parent is left out with its reason, unless the recipe requires it.

    Raises:
        VariantError: One that the recipe requires is not worth releasing.
    """
    recipe = source.recipe
    outcomes = tuple(_make(source, parent, reference, spec) for spec in recipe.variants)
    strayed = tuple(each for each in outcomes if each.parity and not _keeps(each))
    if strayed:
        prefix = quarantine_variants(recipe, strayed)
        outcomes = tuple(
            each.model_copy(update={"quarantine": prefix}) if each in strayed else each
            for each in outcomes
        )
    missing = [each for each in outcomes if each.required and not each.released]
    if missing:
        kept = f" The report is kept under {missing[0].quarantine}." * bool(missing[0].quarantine)
        message = (
            f"{recipe.name}: the variant {missing[0].kind} is required and not released; nothing "
            f"is published.{kept} {missing[0].reason}"
        )
        raise VariantError(message)
    return outcomes


def _make(
    source: SourceModel, parent: Candidate, reference: Reference, spec: VariantSpec
) -> VariantOutcome:
    recipe = source.recipe
    known: dict[str, Any] = {"costs": {}, "notes": ()}
    try:
        reason, released = _prove(source, parent, reference, spec, known)
    except (ExportError, VerificationError, IsolationError) as error:
        reason, released = str(error), False
    outcome = VariantOutcome(
        kind=spec.kind,
        required=spec.required,
        released=released,
        reason=reason,
        parent_bytes=parent.verified.artifact.tree.size_bytes,
        **known,
    )
    tell = get_run_logger().info if released else get_run_logger().warning
    verdict = "released" if released else "refused"
    tell("%s: variant %s %s: %s", recipe.name, spec.kind, verdict, reason)
    return outcome


def _prove(
    source: SourceModel,
    parent: Candidate,
    reference: Reference,
    spec: VariantSpec,
    known: dict[str, Any],
) -> tuple[str, bool]:
    """Return why it is released or not, and whether; what was found goes into ``known``."""
    recipe, original = source.recipe, parent.verified.artifact
    made = vary(recipe, spec, source, reference, original)
    known["notes"] += made.notes
    known["costs"]["export"] = made.cost
    verification = verify(recipe, made.artifact)
    known["verified"] = verification.verified
    known["notes"] += verification.notes
    known["costs"]["verify"] = verification.cost
    judged = judge(recipe, spec, source, reference, verification.verified, made.judged)
    known |= {"parity": judged.report, "agreement": judged.agreement}
    known["costs"]["parity"] = judged.cost
    if not judged.report.passed:
        return f"{spec.kind}: {judged.report.summary()}", False
    if fault := task_fault(spec, judged.agreement):
        return f"{spec.kind}: {fault}", False
    timed = time_beside(recipe, reference, original, made.artifact)
    known["race"] = timed.race
    known["costs"]["timing"] = timed.cost
    gains, words = worth(original.tree.size_bytes, made.artifact.tree.size_bytes, timed.race)
    return words, gains


def _keeps(outcome: VariantOutcome) -> bool:
    """Whether it answers as the source does, whatever else it was refused for."""
    return "timing" in outcome.costs  # only what answers right is timed
