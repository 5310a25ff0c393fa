"""Converting one model with some passes or all of them, in child processes alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.converters import Converter, ConvertRequest, convert_function
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ExportError
from tasks.isolation import Call, Children, Family

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.domain.artifact import Cost
    from tasks.domain.passes import PassPlan, PassRun
    from tasks.domain.recipe import Recipe


@dataclass(frozen=True)
class ExportJob:
    """What is converted, by what, and where."""

    recipe: Recipe
    source: Path
    """Folder of the model to convert."""
    converter: Converter
    children: Children

    def call(self, on_progress: Callable[[float, str], None] | None = None) -> Call:
        """Return in whose name and within which limits the converter works."""
        stage = f"export ({self.converter.name})"
        recipe, family = self.recipe, self.converter.family
        return Call(stage, recipe.name, family, recipe.limits, ExportError, on_progress)


@dataclass(frozen=True)
class Written:
    """What was written."""

    notes: tuple[str, ...]
    passes: tuple[PassRun, ...]
    cost: Cost


def write_export(
    job: ExportJob,
    plan: PassPlan,
    folder: Path,
    on_progress: Callable[[float, str], None] | None = None,
) -> Written:
    """Convert into ``folder``, which is empty.

    Raises:
        ExportError: The converter cannot express this model.
        IsolationError: The converter's process died or went over its limits.
    """
    call, converter = job.call(on_progress), job.converter
    request = ConvertRequest(
        recipe=job.recipe, source=job.source, folder=folder, passes=plan.exporter
    )
    reply = job.children.call(convert_function(converter.name), request, call)
    if not any(folder.iterdir()):
        message = f"{call}: the converter wrote no file. Report it to the converter's author."
        raise ExportError(message)
    notes, passes = reply.value.notes, reply.value.passes
    if converter.makes is ModelFormat.ONNX:
        # not in the converter's own child, in which the source may be answering probes by now
        elsewhere = replace(call, family=Family.ONNXRUNTIME, on_progress=None)
        passes += _simplify(job, folder, elsewhere, plan)
        notes += _lower_ir_version(job, folder, elsewhere)
    return Written(notes, passes, reply.cost)


# Steps are imported where they are called: they bring numpy, for which no worker's start waits.


def _simplify(job: ExportJob, folder: Path, call: Call, plan: PassPlan) -> tuple[PassRun, ...]:
    from tasks.steps.simplify import SimplifyRequest, simplify

    wanted = plan.simplifier
    names = [each for each in job.recipe.simplify if wanted is None or each in wanted]
    if not names:
        return ()
    request = SimplifyRequest(folder=folder, passes=tuple(names))
    return job.children.call(simplify, request, call).value.passes


def _lower_ir_version(job: ExportJob, folder: Path, call: Call) -> tuple[str, ...]:
    from tasks.runners.onnxruntime_runner import MODEL
    from tasks.steps.ir_version import LowerIrRequest, lower_ir_version

    request = LowerIrRequest(model=folder / MODEL)
    return job.children.call(lower_ir_version, request, call).value.notes
