"""Stage 3: hold an exported model to its claims."""

from __future__ import annotations

from typing import assert_never

from prefect import task
from prefect.logging import get_run_logger

from tasks.domain.artifact import Cost, ModelArtifact, ModelFormat, OnnxFacts, VerifiedArtifact
from tasks.domain.errors import VerificationError
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.isolation import Call
from tasks.progress import StageProgress
from tasks.runners import FAMILIES
from tasks.runtime import STAGE, workshop
from tasks.steps.verify_onnx import VerifyOnnxRequest, verify_onnx
from tasks.steps.verify_saved_model import VerifySavedModelRequest, verify_saved_model


class Verification(Value):
    """A verified artifact, and what verifying it took."""

    verified: VerifiedArtifact
    notes: tuple[str, ...] = ()
    cost: Cost


@task(
    name="verify",
    task_run_name="verify {recipe.name} {artifact.format}",
    **STAGE,
)
def verify(recipe: Recipe, artifact: ModelArtifact) -> Verification:
    """Load the stored files afresh and hold them to the declared signature.

    Raises:
        VerificationError: A file cannot be loaded, or breaks a rule of its format.
        SignatureMismatchError: Its inputs or outputs are not the declared ones.
        IsolationError: The runtime's process died or went over its limits.
    """
    shop = workshop()
    family = FAMILIES[artifact.format]
    progress = StageProgress(f"{recipe.name}: verify {artifact.format.label}")
    call = Call("verify", recipe.name, family, recipe.limits, VerificationError, progress)
    model = shop.fetch(artifact.tree)
    facts: OnnxFacts | None = None
    notes: tuple[str, ...] = ()
    match artifact.format:
        case ModelFormat.ONNX:
            request = VerifyOnnxRequest(recipe=recipe, model=model)
            onnx = shop.children.call(verify_onnx, request, call)
            checks, cost, facts = onnx.value.checks, onnx.cost, onnx.value.facts
            notes = onnx.value.notes
        case ModelFormat.SAVED_MODEL:
            saved = shop.children.call(
                verify_saved_model, VerifySavedModelRequest(recipe=recipe, model=model), call
            )
            checks, cost = saved.value.checks, saved.cost
        case ModelFormat.SKLEARN | ModelFormat.TORCH | ModelFormat.KERAS:
            message = f"{call}: nothing here verifies {artifact.format.label} files."
            raise VerificationError(message)
        case unknown:
            assert_never(unknown)
    progress.finish()
    get_run_logger().info(
        "%s: %s verified: %s", recipe.name, artifact.format.label, "; ".join(checks)
    )
    return Verification(
        verified=VerifiedArtifact(artifact=artifact, checks=checks, onnx=facts),
        notes=notes,
        cost=cost,
    )
