"""The stages that GPU workers offer, and which of a recipe's stages go there.

| `device` | training a torch network | comparing an export with the source | judging variants |
|---|---|---|---|
| `cpu` | here | here | here |
| `cuda` | on a GPU worker | on a GPU worker | on a GPU worker |
| `both` | here | here, and again on a GPU worker | here |
"""

from __future__ import annotations

from tasks.domain.artifact import ModelArtifact, ModelFormat, VerifiedArtifact
from tasks.domain.recipe import Recipe
from tasks.domain.release import Reference, SourceModel
from tasks.domain.value import Value
from tasks.domain.variants import VariantSpec
from tasks.isolation import Family
from tasks.parity import Comparison, check_parity
from tasks.perform import require_gpu
from tasks.remote import gpu_stage, on_gpu
from tasks.runners import FAMILIES
from tasks.runtime import workshop
from tasks.vary import Judged, Timed, judge, time_beside


class TrainRequest(Value):
    """What to train."""

    recipe: Recipe


class ParityRequest(Value):
    """What to compare with what."""

    recipe: Recipe
    reference: Reference
    candidate: VerifiedArtifact


class JudgeRequest(Value):
    """Which variant to judge, by what."""

    recipe: Recipe
    spec: VariantSpec
    source: SourceModel
    reference: Reference
    candidate: VerifiedArtifact
    judged: int | None


class TimeRequest(Value):
    """Which two to time."""

    recipe: Recipe
    reference: Reference
    parent: ModelArtifact
    variant: ModelArtifact


@gpu_stage
def train(request: TrainRequest) -> SourceModel:
    """Train a torch network on this worker's GPU."""
    from tasks.acquire import acquire

    require_gpu(_training(request.recipe), Family.TORCH)
    return acquire(request.recipe)


@gpu_stage
def compare(request: ParityRequest) -> Comparison:
    """Compare a candidate with its source, on this worker's GPU."""
    recipe, candidate = request.recipe, request.candidate
    format_ = candidate.artifact.format
    require_gpu(_comparing(recipe, format_), FAMILIES[format_])
    on_cuda = recipe.model_copy(update={"device": "cuda"})
    return check_parity(on_cuda, request.reference, candidate)


@gpu_stage
def judge_variant(request: JudgeRequest) -> Judged:
    """Judge a variant on this worker's GPU."""
    require_gpu(_judging(request.recipe, request.spec.kind), FAMILIES[ModelFormat.ONNX])
    return judge(
        request.recipe,
        request.spec,
        request.source,
        request.reference,
        request.candidate,
        request.judged,
    )


@gpu_stage
def time_variant(request: TimeRequest) -> Timed:
    """Time a variant beside its parent on this worker's GPU."""
    kind = request.variant.variant
    require_gpu(_timing(request.recipe, kind), FAMILIES[ModelFormat.ONNX])
    return time_beside(request.recipe, request.reference, request.parent, request.variant)


def train_elsewhere(recipe: Recipe) -> SourceModel | None:
    """Train on a GPU worker what must be; None for what this machine is to acquire itself."""
    if recipe.device != "cuda" or recipe.source.kind != "train-torch" or workshop().lent:
        return None
    return on_gpu(train, TrainRequest(recipe=recipe), _training(recipe))


def compare_elsewhere(
    recipe: Recipe, reference: Reference, candidate: VerifiedArtifact
) -> Comparison | None:
    """Compare on a GPU worker what must be; None for what this machine is to compare first."""
    if recipe.device != "cuda" or workshop().lent:
        return None
    return _compare(recipe, reference, candidate)


def judge_elsewhere(request: JudgeRequest) -> Judged | None:
    """Judge a variant on a GPU worker, if it must be; None if here."""
    recipe = request.recipe
    if recipe.device != "cuda" or workshop().lent:
        return None
    return on_gpu(judge_variant, request, _judging(recipe, request.spec.kind))


def time_elsewhere(request: TimeRequest) -> Timed | None:
    """Time a variant on a GPU worker, if it must be; None if here."""
    recipe = request.recipe
    if recipe.device != "cuda" or workshop().lent:
        return None
    return on_gpu(time_variant, request, _timing(recipe, request.variant.variant))


def compare_on_both(
    recipe: Recipe, reference: Reference, candidate: VerifiedArtifact, here: Comparison
) -> Comparison:
    """Add to a comparison made here the one on a GPU, where the recipe wants both.

    A candidate that does not agree on the CPU is not sent.
    """
    if recipe.device != "both" or not here.report.passed:
        return here
    there = _compare(recipe, reference, candidate).report
    matrix = here.report.matrix.filled(there.matrix, provider="CUDA")
    report = here.report.model_copy(update={"on_cuda": there, "matrix": matrix})
    return here.model_copy(update={"report": report})


def _compare(recipe: Recipe, reference: Reference, candidate: VerifiedArtifact) -> Comparison:
    request = ParityRequest(recipe=recipe, reference=reference, candidate=candidate)
    return on_gpu(compare, request, _comparing(recipe, candidate.artifact.format))


def _training(recipe: Recipe) -> str:
    return f"{recipe.name}: training on CUDA"


def _comparing(recipe: Recipe, format_: ModelFormat) -> str:
    return f"{recipe.name}: parity {format_.label} on CUDA"


def _judging(recipe: Recipe, kind: str) -> str:
    return f"{recipe.name}: judging {kind} on CUDA"


def _timing(recipe: Recipe, kind: str | None) -> str:
    return f"{recipe.name}: timing {kind} on CUDA"
