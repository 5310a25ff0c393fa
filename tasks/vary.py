"""Stages of a variant: make it of the proven ONNX model, judge it, and time it beside that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger
from pydantic import PositiveInt

from tasks.domain.artifact import Cost, ModelArtifact, ModelFormat, VerifiedArtifact
from tasks.domain.errors import ExportError, VerificationError
from tasks.domain.parity import ParityReport
from tasks.domain.recipe import Recipe
from tasks.domain.release import Reference, SourceModel
from tasks.domain.value import Value
from tasks.domain.variant_rules import REAL_PROBES
from tasks.domain.variants import Agreement, Int8, Race, VariantOutcome, VariantSpec
from tasks.domain.waivers import apply_waivers, today_in_utc
from tasks.isolation import Call, Family
from tasks.parity import ask_for_answers
from tasks.progress import StageProgress
from tasks.runners import FAMILIES
from tasks.runtime import STAGE, workshop
from tasks.sources import HELD_OUT
from tasks.storage import publishing

if TYPE_CHECKING:
    from pathlib import Path

    from tasks import gpu_stages
    from tasks.isolation import Answered
    from tasks.steps.judge_variant import JudgeReply

_TIMED_BYTES = 1_000_000_000
"""Two models that are larger together are not timed: both would have to be in memory at once."""


class Varied(Value):
    """A variant as it was written, not yet checked by anyone."""

    artifact: ModelArtifact
    judged: PositiveInt | None = None
    """How many of the real rows may judge it; None: all."""
    notes: tuple[str, ...]
    cost: Cost


class Judged(Value):
    """The verdict on a variant's numbers, and how it does its task."""

    report: ParityReport
    agreement: Agreement
    cost: Cost


class Timed(Value):
    """How fast a variant is beside its parent; ``race`` is absent where that was not timed."""

    race: Race | None
    cost: Cost


@task(name="variant", task_run_name="make {recipe.name} {spec.kind}", tags=["export"], **STAGE)
def vary(
    recipe: Recipe,
    spec: VariantSpec,
    source: SourceModel,
    reference: Reference,
    parent: ModelArtifact,
) -> Varied:
    """Make one variant of a proven ONNX model.

    Raises:
        ExportError: The model cannot be expressed like that, or gains nothing from it.
        IsolationError: The child's process died or went over its limits.
    """
    from tasks.variants import VariantRequest, make_variant

    shop = workshop()
    call = _call(f"variant {spec.kind}", recipe, ExportError)
    judged: int | None = None
    calibration: Path | None = None
    notes: tuple[str, ...] = ()
    if isinstance(spec, Int8):
        judged, notes, calibration = _calibration(recipe, spec, source, reference)
    name = f"{parent.format.folder}-{spec.kind}"
    folder = shop.new_folder(name)
    request = VariantRequest(
        recipe=recipe,
        spec=spec,
        source=shop.fetch(parent.tree),
        folder=folder,
        scratch=shop.new_folder("scratch"),
        probes=shop.fetch(reference.inputs),
        calibration=calibration,
    )
    reply = shop.children.call(make_variant, request, call)
    return Varied(
        artifact=parent.model_copy(
            update={"tree": shop.keep(folder, name), "variant": str(spec.kind)}
        ),
        judged=judged,
        notes=(*reply.value.notes, *notes),
        cost=reply.cost,
    )


@task(name="judge variant", task_run_name="judge {recipe.name} {spec.kind}", tags=["parity"],
      **STAGE)  # fmt: skip
def judge(
    recipe: Recipe,
    spec: VariantSpec,
    source: SourceModel,
    reference: Reference,
    candidate: VerifiedArtifact,
    judged: int | None,
) -> Judged:
    """Let a variant answer the probes, and compare it with the source framework's own answers.

    Raises:
        VerificationError: It gave no answers to compare.
        IsolationError: The runtime's process died or went over its limits.
        RemoteError: It is judged on a GPU worker, and that gave no answer.
    """
    from tasks.gpu_stages import JudgeRequest, judge_elsewhere

    asked = JudgeRequest(
        recipe=recipe,
        spec=spec,
        source=source,
        reference=reference,
        candidate=candidate,
        judged=judged,
    )
    if (judged_there := judge_elsewhere(asked)) is not None:
        return judged_there
    folder = workshop().new_folder("answers")
    call = _call(f"judge {spec.kind}", recipe, VerificationError)
    answered = ask_for_answers(recipe, reference, candidate, folder, call)
    compared = _compared(asked, answered.value.runtime, folder, call)
    report = apply_waivers(
        compared.value.report, recipe.waivers, today_in_utc(), variant=str(spec.kind)
    )
    cost = answered.cost + compared.cost
    return Judged(report=report, agreement=compared.value.agreement, cost=cost)


def _compared(
    asked: gpu_stages.JudgeRequest, runtime: str, answers: Path, call: Call
) -> Answered[JudgeReply]:
    """Compare a variant's answers with the source's."""
    from tasks.steps.judge_variant import JudgeRequest, judge_variant

    shop = workshop()
    request = JudgeRequest(
        recipe=asked.recipe,
        spec=asked.spec,
        runtime=runtime,
        probes=asked.reference.probes,
        reference=shop.fetch(asked.reference.answers),
        answers=answers,
        judged=asked.judged,
        held_out=_held_out(asked.source),
    )
    return shop.children.call(judge_variant, request, call)


@task(name="time variant", task_run_name="time {recipe.name} {variant.variant}", **STAGE)
def time_beside(
    recipe: Recipe, reference: Reference, parent: ModelArtifact, variant: ModelArtifact
) -> Timed:
    """Time a variant beside its parent, unless the two are too large to be in memory at once.

    Raises:
        VerificationError: One of them does not load.
        IsolationError: The runtime's process died or went over its limits.
    """
    from tasks.gpu_stages import TimeRequest, time_elsewhere
    from tasks.runners.onnxruntime_runner import MODEL
    from tasks.steps.race import RaceRequest, race

    there = TimeRequest(recipe=recipe, reference=reference, parent=parent, variant=variant)
    if (timed_there := time_elsewhere(there)) is not None:
        return timed_there
    shop = workshop()
    if parent.tree.size_bytes + variant.tree.size_bytes > _TIMED_BYTES:
        return Timed(race=None, cost=Cost())
    names = [each.name for each in reference.probes]
    probe = next((name for name in names if name in REAL_PROBES), names[0])
    request = RaceRequest(
        recipe=recipe,
        parent=shop.fetch(parent.tree) / MODEL,
        variant=shop.fetch(variant.tree) / MODEL,
        probe=shop.fetch(reference.inputs) / f"{probe}.npz",
        device="cuda" if recipe.device == "cuda" else "cpu",
    )
    answered = shop.children.call(
        race, request, _call(f"time {variant.variant}", recipe, VerificationError)
    )
    return Timed(race=answered.value, cost=answered.cost)


@task(name="quarantine variants", task_run_name="quarantine {recipe.name}", **STAGE)
def quarantine_variants(recipe: Recipe, outcomes: tuple[VariantOutcome, ...]) -> str:
    """Keep the reports of variants that stray where people can read them; return the prefix."""
    shop = workshop()
    folder = shop.new_folder("quarantine")
    files: dict[str, Path] = {}
    for each in outcomes:
        name = f"{each.folder}.json"
        files[name] = folder / name
        files[name].write_text(each.model_dump_json(indent=2))
    prefix = publishing.quarantine(shop.store, recipe.name, shop.run, files)
    get_run_logger().warning(
        "%s: reports of variants that stray are kept at %s", recipe.name, shop.store.url(prefix)
    )
    return prefix


def _calibration(
    recipe: Recipe, spec: Int8, source: SourceModel, reference: Reference
) -> tuple[int, tuple[str, ...], Path]:
    from tasks.steps.calibration import CALIBRATION, CalibrationRequest, collect_calibration

    shop = workshop()
    folder = shop.new_folder("calibration")
    request = CalibrationRequest(
        recipe=recipe,
        rows=spec.calibration_rows,
        probes=shop.fetch(reference.inputs),
        names=tuple(each.name for each in reference.probes),
        held_out=_held_out(source),
        folder=folder,
    )
    call = Call("calibration rows", recipe.name, Family.LIGHT, recipe.limits, ExportError)
    reply = shop.children.call(collect_calibration, request, call).value
    return reply.judged, (reply.words,), folder / CALIBRATION


def _held_out(source: SourceModel) -> Path | None:
    path = workshop().fetch(source.artifact.tree) / HELD_OUT
    return path if path.is_file() else None


def _call(stage: str, recipe: Recipe, fails_as: type[ExportError | VerificationError]) -> Call:
    progress = StageProgress(f"{recipe.name}: {stage}")
    family = FAMILIES[ModelFormat.ONNX]
    return Call(stage, recipe.name, family, recipe.limits, fails_as, progress)
