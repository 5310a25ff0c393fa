"""Find the first stage after which a model answers wrongly; children do the work, no flow needed.

``case_for`` cuts a failing probe down to a few rows, and ``bisect`` lets one way after another
answer those rows until one is wrong. ``bisect_onnx`` exports the model again for that, with fewer
passes.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.domain.artifact import ModelFormat
from tasks.domain.diagnosis import Bisection, StageVerdict, Way
from tasks.domain.errors import ConfigurationError, ParityError, ReleaseError, VerificationError
from tasks.domain.noise import DUST, LEAST_MAX
from tasks.domain.parity import HeldTo, Tolerance
from tasks.domain.passes import PassPlan
from tasks.domain.recipe import Recipe
from tasks.domain.release import ProbeInfo
from tasks.domain.value import Value
from tasks.exporting import ExportJob, write_export
from tasks.isolation import Call, Children, Family
from tasks.runners import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tasks.domain.diagnosis import Stage
    from tasks.domain.parity import ParityReport
    from tasks.domain.passes import PassRun


class Case(Value):
    """A few rows of one probe, and what the source answers to them."""

    recipe: Recipe
    probe: ProbeInfo
    """The rows that were kept, under the name of the whole."""
    row: int
    """The row that shows the fault most, by its place in the whole probe."""
    place: int = 0
    """The same row, by its place among those that were kept."""
    checks_form: bool = False
    """Whether an ONNX file must pass ``verify`` too: for faults that no answer shows."""
    inputs: Path
    """Folder of ``<probe>.npz``."""
    answers: Path
    """Folder of the source's answers, likewise."""
    held: dict[str, HeldTo] = {}
    """By output, what the numbers are held to; the profile's where one is absent."""
    float64: Path | None = None
    """Folder of its answers in float64: a fault may show against them alone."""

    @property
    def has_float64(self) -> bool:
        """Whether float64 answered these rows; else ``held`` stands for what it would show."""
        return self.float64 is not None and (self.float64 / f"{self.probe.name}.npz").is_file()


class Asked(Value):
    """What a model was asked, and what the source answers to it."""

    recipe: Recipe
    probes: tuple[ProbeInfo, ...]
    inputs: Path
    """Folder of the probes, ``<probe>.npz`` each."""
    answers: Path
    """Folder of the source's answers, likewise."""
    float64: Path | None = None
    """Folder of its answers in float64, where it gave any."""


def case_for(
    wrong: Way, report: ParityReport | None, asked: Asked, children: Children, scratch: Path
) -> Case:
    """Cut the probe that shows the fault of ``wrong`` down to a few rows.

    Args:
        wrong: A way whose answers are wrong, or that does not answer at all.
        report: Its comparison; None where it gave nothing to compare.
        asked: The probes, whole.
        children: Where everything runs.
        scratch: Where folders may be made.
    """
    from tasks.steps.cut_rows import CutRequest, cut_rows

    recipe, probe = asked.recipe, _most_telling(report, asked.probes)
    whole = Case(recipe=recipe, probe=probe, row=0, inputs=asked.inputs, answers=asked.answers)
    answers = _folder(scratch, "answers")
    with suppress(ReleaseError):  # then there are none, and the first rows are kept
        _answer(wrong, whole, children, answers)
    folder = _folder(scratch, "case")
    request = CutRequest(
        recipe=recipe,
        probe=probe.name,
        inputs=asked.inputs,
        reference=asked.answers,
        answers=answers,
        float64=asked.float64,
        folder=folder,
    )
    cut = children.call(cut_rows, request, _call(recipe, Family.LIGHT)).value
    return Case(
        recipe=recipe,
        probe=probe.model_copy(update={"rows": len(cut.rows)}),
        row=cut.worst,
        place=cut.rows.index(cut.worst),
        inputs=folder / "inputs",
        answers=folder / "answers",
        float64=folder / "float64",
        checks_form=report is None,
        held=_held(report, probe.name),
    )


def _held(report: ParityReport | None, probe: str) -> dict[str, HeldTo]:
    """Return by output what tells a right way from a wrong one on this probe.

    What the comparison held it to; but where only the noise floor saw the fault, which float64
    answers alone can tell, a bound between the source's own error and the candidate's.
    """
    whole = report.held.get(probe, {}) if report else {}
    # rows have other places in the case, which is made of rows that were judged
    held = {name: HeldTo(tolerance=each.tolerance) for name, each in whole.items()}
    found = next((each for each in report.probes if each.probe == probe), None) if report else None
    for output in found.outputs if found else ():
        if output.noise and not output.noise.passed:
            between = sqrt(max(output.noise.own_max, LEAST_MAX) * output.noise.error_max)
            tolerance = Tolerance(rtol=0, scale=between, floor=DUST)
            held[output.name] = HeldTo(tolerance=tolerance)
    return held


def _most_telling(report: ParityReport | None, probes: tuple[ProbeInfo, ...]) -> ProbeInfo:
    """Return the failed probe with the fewest rows, or the random one where none could fail."""
    if report is None:
        return max(probes, key=lambda each: each.name == "random")
    failed = {each.probe for each in report.probes if not each.passed}
    failed = failed or set(report.matrix.probes[:1])
    fitting = [each for each in probes if each.name in failed] or list(probes)
    return min(fitting, key=lambda each: each.rows)


def bisect(ways: Iterable[Way], case: Case, children: Children, scratch: Path) -> Bisection | None:
    """Let one way after another answer, and name the first whose answers are wrong.

    A way that crashes its runtime, or does not answer, is wrong there.

    Args:
        ways: In the order in which a model goes through them; taken only as they are needed.
        case: What they answer.
        children: Where everything runs.
        scratch: Where folders may be made.

    Returns:
        None where every way answers rightly.
    """
    good: Way | None = None
    verdicts: list[StageVerdict] = []
    found: Way | None = None
    for way in ways:
        verdicts.append(judge(way, case, children, scratch))
        if verdicts[-1].passed is False:
            found = way
            break
        good = way if verdicts[-1].passed else good
    if found is None:
        return None
    return Bisection(
        good=good, bad=found, probe=case.probe.name, row=case.row, verdicts=tuple(verdicts)
    )


def judge(way: Way, case: Case, children: Children, scratch: Path) -> StageVerdict:
    """Let one way answer, and compare with the source."""
    from tasks.steps.compare import CompareRequest, compare

    answers = _folder(scratch, "way")
    passed: bool | None
    try:
        _check_form(way, case, children)
        runtime = _answer(way, case, children, answers)
        request = CompareRequest(
            recipe=case.recipe,
            candidate=way.format,
            runtime=runtime,
            probes=(case.probe,),
            reference=case.answers,
            answers=answers,
            held={} if case.has_float64 else {case.probe.name: case.held},
            float64=case.float64 if case.has_float64 else None,
        )
        call = _call(case.recipe, Family.LIGHT)
        report = children.call(compare, request, call).value
    except ConfigurationError as error:  # no such device here
        passed, words = None, f"not run: {error}"
    except ReleaseError as error:
        passed, words = False, str(error)
    else:
        (probe,) = report.probes
        passed = probe.passed
        rows = "row" if probe.rows == 1 else "rows"
        bad = "; ".join(f"{each.name}: {each.reason}" for each in probe.outputs if each.reason)
        words = bad or f"equal on {probe.rows} {rows}, using {report.budget:.1%} of the tolerance"
    return StageVerdict(stage=way.stage, step=way.step, passed=passed, words=words)


def _check_form(way: Way, case: Case, children: Children) -> None:
    from tasks.steps.verify_onnx import VerifyOnnxRequest, verify_onnx

    if case.checks_form and way.format is ModelFormat.ONNX:
        request = VerifyOnnxRequest(recipe=case.recipe, model=way.model)
        children.call(verify_onnx, request, _call(case.recipe, FAMILIES[way.format]))


def _answer(way: Way, case: Case, children: Children, folder: Path) -> str:
    from tasks.steps.answer import AnswerRequest, answer

    request = AnswerRequest(
        recipe=case.recipe,
        format=way.format,
        model=way.model,
        probes=case.inputs,
        names=(case.probe.name,),
        device=way.device,
        folder=folder,
        optimisation=way.optimisation,
    )
    return children.call(answer, request, _call(case.recipe, FAMILIES[way.format])).value.runtime


def bisect_onnx(
    job: ExportJob, candidate: Path, passes: tuple[PassRun, ...], case: Case, scratch: Path
) -> Bisection | None:
    """Bisect an ONNX model from its raw export to the runtime, exporting as few as it takes.

    Between a raw export that is right and a whole one that is wrong, the passes are halved until
    one stands alone: the file before it is right, the file after it is wrong.

    Args:
        job: How it was exported.
        candidate: Folder of the model as it was exported.
        passes: What ran in that export; those that changed nothing make no way of their own.
        case: What the ways answer.
        scratch: Where folders may be made.
    """
    exports = _Exports(job, candidate, tuple(each for each in passes if each.may_matter), scratch)
    whole = len(exports.passes)
    judged: dict[int, tuple[Way, StageVerdict]] = {}

    def breaks(i: int) -> bool:
        judged[i] = exports.judge(i, case)
        return judged[i][1].passed is False

    low, high = 0, whole
    if breaks(0):
        high = 0
    elif not whole or not breaks(whole):
        rest = bisect(runtime_ways(candidate, job.recipe), case, job.children, scratch)
        return _after([judged[i] for i in sorted(judged)], rest)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if breaks(middle) else (middle, high)
    tried = [judged[i] for i in sorted(judged) if i <= high]
    right = [way for way, verdict in tried if verdict.passed]
    return Bisection(
        good=right[-1] if right else None,
        bad=judged[high][0],
        probe=case.probe.name,
        row=case.row,
        verdicts=tuple(verdict for _, verdict in tried),
    )


def _after(before: list[tuple[Way, StageVerdict]], rest: Bisection | None) -> Bisection | None:
    """Put what was tried before in front of a bisection."""
    if rest is None:
        return None
    verdicts = (*(verdict for _, verdict in before), *rest.verdicts)
    good = rest.good or before[-1][0]
    return rest.model_copy(update={"verdicts": verdicts, "good": good})


class _Exports:
    """The exports of one model with none, some and all of its passes."""

    def __init__(
        self, job: ExportJob, candidate: Path, passes: tuple[PassRun, ...], scratch: Path
    ) -> None:
        self.passes = passes
        self._job, self._candidate, self._scratch = job, candidate, scratch

    def judge(self, count: int, case: Case) -> tuple[Way, StageVerdict]:
        """Make the export with the first ``count`` passes, if it is not there yet, and judge it."""
        last = self.passes[count - 1] if count else None
        folder = self._candidate
        try:
            if count < len(self.passes):
                folder = _folder(self._scratch, "export")
                plan = PassPlan.of(self.passes[:count])
                write_export(self._job, plan, folder)
        except ReleaseError as error:
            way = _way(last, folder)
            words = f"not run: {error}"
            return way, StageVerdict(stage=way.stage, step=way.step, passed=None, words=words)
        way = _way(last, folder)
        return way, judge(way, case, self._job.children, self._scratch)


def runtime_ways(model: Path, recipe: Recipe) -> Iterator[Way]:
    """Yield the ways of one ONNX file through ONNX Runtime, beyond optimisation off."""
    stage: Stage = "runtime optimisation"
    onnx = ModelFormat.ONNX
    yield Way(stage=stage, step="basic", format=onnx, model=model, optimisation="basic")
    yield Way(stage=stage, step="all", format=onnx, model=model, optimisation="all")
    if recipe.device in {"cuda", "both"}:
        yield Way(
            stage="execution provider",
            step="CUDA",
            format=onnx,
            model=model,
            optimisation="all",
            device="cuda",
        )


def tensorflow_ways(onnx: Path, saved_model: Path) -> Iterator[Way]:
    """Yield the proven ONNX file, then the SavedModel that was made from it."""
    yield Way(
        stage="runtime optimisation",
        step="all",
        format=ModelFormat.ONNX,
        model=onnx,
        optimisation="all",
    )
    yield Way(stage="TensorFlow", format=ModelFormat.SAVED_MODEL, model=saved_model)


def _way(last: PassRun | None, folder: Path) -> Way:
    """Return the way of a file of which ``last`` was the last pass that changed it."""
    stage: Stage = last.stage if last else "raw export"
    step = last.name if last else ""
    return Way(stage=stage, step=step, format=ModelFormat.ONNX, model=folder)


def _folder(scratch: Path, name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=scratch))


def _call(recipe: Recipe, family: Family) -> Call:
    fails_as = ParityError if family is Family.LIGHT else VerificationError
    return Call("bisect", recipe.name, family, recipe.limits, fails_as)
