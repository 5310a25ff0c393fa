"""Stage 3: hold an exported model to its claims."""

from __future__ import annotations

from typing import assert_never

from prefect import task
from prefect.logging import get_run_logger

from tasks.domain.artifact import Cost, ModelArtifact, ModelFormat, VerifiedArtifact
from tasks.domain.errors import VerificationError
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.isolation import Call
from tasks.progress import StageProgress
from tasks.resume import resumable
from tasks.runners import FAMILIES
from tasks.runtime import STAGE, workshop


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
@resumable
def verify(recipe: Recipe, artifact: ModelArtifact) -> Verification:
    """Load the stored files afresh and hold them to the declared signature.

    Raises:
        VerificationError: A file cannot be loaded, or breaks a rule of its format.
        SignatureMismatchError: Its inputs or outputs are not the declared ones.
        IsolationError: The runtime's process died or went over its limits.
    """
    family = FAMILIES[artifact.format]
    progress = StageProgress(f"{recipe.name}: verify {artifact.format.label}")
    call = Call("verify", recipe.name, family, recipe.limits, VerificationError, progress)
    match artifact.format:
        case ModelFormat.ONNX:
            verification = _verify_onnx(recipe, artifact, call)
        case ModelFormat.SAVED_MODEL:
            verification = _verify_saved_model(recipe, artifact, call)
        case ModelFormat.SKLEARN | ModelFormat.TORCH | ModelFormat.KERAS:
            message = f"{call}: nothing here verifies {artifact.format.label} files."
            raise VerificationError(message)
        case unknown:
            assert_never(unknown)
    progress.finish()
    checks = "; ".join(verification.verified.checks)
    get_run_logger().info("%s: %s verified: %s", recipe.name, artifact.format.label, checks)
    return verification


# Steps are imported where they are called: they bring numpy, for which no worker's start waits.


def _verify_onnx(recipe: Recipe, artifact: ModelArtifact, call: Call) -> Verification:
    from tasks.steps.verify_onnx import VerifyOnnxRequest, verify_onnx

    shop = workshop()
    request = VerifyOnnxRequest(recipe=recipe, model=shop.fetch(artifact.tree))
    answered = shop.children.call(verify_onnx, request, call)
    reply = answered.value
    return Verification(
        verified=VerifiedArtifact(artifact=artifact, checks=reply.checks, onnx=reply.facts),
        notes=reply.notes,
        cost=answered.cost,
    )


def _verify_saved_model(recipe: Recipe, artifact: ModelArtifact, call: Call) -> Verification:
    from tasks.steps.verify_saved_model import VerifySavedModelRequest, verify_saved_model

    shop = workshop()
    request = VerifySavedModelRequest(recipe=recipe, model=shop.fetch(artifact.tree))
    answered = shop.children.call(verify_saved_model, request, call)
    return Verification(
        verified=VerifiedArtifact(artifact=artifact, checks=answered.value.checks),
        cost=answered.cost,
    )
