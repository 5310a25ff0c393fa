"""One inference on a published release: does the model still answer as it did when published?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ParityError, ReleaseError, VerificationError
from tasks.domain.verification import Check, Fault
from tasks.domain.waivers import apply_waivers
from tasks.isolation import Call, Children, Family
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.compare import CompareRequest, compare

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.parity import HeldTo, ParityReport
    from tasks.domain.release import Manifest

_MODEL = "onnx/model.onnx"


def check_golden(manifest: Manifest, folder: Path, scratch: Path) -> Check:
    """Let ONNX Runtime answer the golden inputs, and hold its answers to the golden ones.

    Args:
        manifest: The release's; its recipe has the tolerances and the limits.
        folder: The release, proven.
        scratch: An empty folder.
    """
    try:
        report = _inference(manifest, folder, scratch)
    except ReleaseError as error:
        return Check(name="golden", words="", faults=(Fault(path=_MODEL, what=str(error)),))
    if not report.passed:
        fault = Fault(path=_MODEL, what=report.summary())
        return Check(name="golden", words="", faults=(fault,))
    return Check(name="golden", words=f"{report.runtime}: {report.summary()}")


def _inference(manifest: Manifest, folder: Path, scratch: Path) -> ParityReport:
    recipe, names = manifest.recipe, tuple(each.name for each in manifest.probes)
    answers = scratch / "answers"
    answers.mkdir()

    def call(family: Family, fails_as: type[ReleaseError]) -> Call:
        return Call("golden inference", recipe.name, family, recipe.limits, fails_as)

    with Children(scratch) as children:
        reply = children.call(
            answer,
            AnswerRequest(
                recipe=recipe,
                format=ModelFormat.ONNX,
                model=folder / "onnx",
                probes=folder / "golden" / "inputs",
                names=names,
                device="cpu",
                folder=answers,
            ),
            call(Family.ONNXRUNTIME, VerificationError),
        )
        report = children.call(
            compare,
            CompareRequest(
                recipe=recipe,
                candidate=ModelFormat.ONNX,
                runtime=reply.value.runtime,
                probes=manifest.probes,
                reference=folder / "golden" / "answers",
                answers=answers,
                held=held_when_released(manifest, ModelFormat.ONNX),
            ),
            call(Family.LIGHT, ParityError),
        ).value
    # what was waived when it was published stays so: its files have not changed since
    return apply_waivers(report, recipe.waivers, manifest.created.date())


def held_when_released(manifest: Manifest, format_: ModelFormat) -> dict[str, dict[str, HeldTo]]:
    """Return by probe and output what a released format was held to, with the noise of then.

    Float64 answers are not published, so that a replay could not measure the noise again.
    """
    return next(
        (published.parity.held for published in manifest.formats if published.format is format_),
        {},
    )
