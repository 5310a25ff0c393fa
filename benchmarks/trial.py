"""One good model through acquisition, export and the parity gate, without Prefect or a store."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from tasks.converters import ConvertRequest, convert_function, converters_for
from tasks.domain.artifact import Cost, ModelFormat
from tasks.domain.errors import ReleaseError, VerificationError
from tasks.domain.value import Value
from tasks.isolation import Call, Children, Family
from tasks.matrix import MatrixJob, fill_matrix
from tasks.runners import FAMILIES
from tasks.sources import SOURCES, AcquireRequest
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.compare import CompareRequest, compare
from tasks.steps.float64 import Float64Request, answer_in_float64
from tasks.steps.probes import ProbesRequest, make_probes
from tasks.steps.split_rows import SplitRowsRequest, make_split_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.domain.parity import ParityReport
    from tasks.domain.recipe import Recipe
    from tasks.domain.release import ProbeInfo

Request = TypeVar("Request", bound=Value)
Reply = TypeVar("Reply", bound=Value)

_ASKS_FOR = re.compile(r"Ask for opset (\d+)")
"""skl2onnx writes some operators at one opset alone, and its converter here says at which."""

WORDS = 400
"""How much of an error is kept."""


class Trial(Value):
    """What became of one model."""

    model: str
    converter: str = ""
    verdict: Literal["equal", "differs", "not tried"]
    words: str
    budget: float | None = None
    """The largest share of its tolerance that any element uses."""
    ratio_max: float | None = None
    """The candidate's largest error against float64 over the source's own; the worst output."""
    ratio_rms: float | None = None
    """The same of the root mean squares."""
    rows: int = 0
    export: Cost = Cost()
    parity: Cost = Cost()


class Bench:
    """The stages of a run, each in a child process, for one model after another."""

    def __init__(self, children: Children, folder: Path, pictures: tuple[Path, ...] = ()) -> None:
        self._children, self._folder, self._pictures = children, folder, pictures

    def run(self, recipe: Recipe, downloads: tuple[Path, ...] = ()) -> Trial:
        """Take one model through the gate by its first converter that can export it.

        Where the converter says at which opset it can, that one is taken.
        """
        trial = self._tried(recipe, downloads)
        if asked := _ASKS_FOR.search(trial.words):
            lower = recipe.model_copy(update={"opset": int(asked[1])})
            return self._tried(lower, downloads)
        return trial

    def _tried(self, recipe: Recipe, downloads: tuple[Path, ...]) -> Trial:
        try:
            return self._run(recipe, downloads)
        except ReleaseError as error:
            return Trial(model=recipe.name, verdict="not tried", words=str(error)[:WORDS])

    def _run(self, recipe: Recipe, downloads: tuple[Path, ...]) -> Trial:
        source, kind = self._new("source"), SOURCES[recipe.source.kind]
        acquired = AcquireRequest(recipe=recipe, downloads=downloads, folder=source)
        self._call(recipe, kind.family, kind.acquire, acquired)
        probes, infos = self._probes(recipe, source)
        names = tuple(each.name for each in infos)
        reference, _ = self._answers(recipe, recipe.source_format, source, probes, names)
        wide = self._new("float64")
        request = Float64Request(
            recipe=recipe, model=source, probes=probes, names=names, folder=wide
        )
        wider, _ = self._call(recipe, FAMILIES[recipe.source_format], answer_in_float64, request)
        name, model, export = self._export(recipe, source)
        try:
            answers, answering = self._answers(recipe, ModelFormat.ONNX, model, probes, names)
        except VerificationError as error:
            words = str(error)[:WORDS]
            return Trial(model=recipe.name, converter=name, verdict="differs", words=words)
        comparison = CompareRequest(
            recipe=recipe,
            candidate=ModelFormat.ONNX,
            runtime="ONNX Runtime",
            probes=infos,
            reference=reference,
            answers=answers,
            float64=wide if any(wide.iterdir()) else None,
            float64_words=wider.words,
        )
        report, comparing = self._call(recipe, Family.ONNXRUNTIME, compare, comparison)
        began = time.perf_counter()
        job = MatrixJob(recipe, model, probes, reference, self._children)
        report = report.model_copy(update={"matrix": fill_matrix(job, report)})
        parity = Cost(
            seconds=answering.seconds + comparing.seconds + time.perf_counter() - began,
            peak_mb=max(answering.peak_mb, comparing.peak_mb),
        )
        return _told(recipe, name, report, export, parity)

    def _export(self, recipe: Recipe, source: Path) -> tuple[str, Path, Cost]:
        errors = []
        for converter in converters_for(recipe, recipe.source_format, ModelFormat.ONNX):
            if refusal := converter.refusal(recipe):
                errors.append(refusal)
                continue
            folder = self._new("onnx")
            request = ConvertRequest(recipe=recipe, source=source, folder=folder)
            try:
                _, cost = self._call(
                    recipe, converter.family, convert_function(converter.name), request
                )
            except ReleaseError as error:
                errors.append(str(error))
                continue
            return converter.name, folder, cost
        raise VerificationError("; ".join(errors))

    def _probes(self, recipe: Recipe, source: Path) -> tuple[Path, tuple[ProbeInfo, ...]]:
        folder = self._new("probes")
        request = ProbesRequest(
            recipe=recipe, pictures=self._pictures, held_out=None, folder=folder
        )
        made, _ = self._call(recipe, Family.LIGHT, make_probes, request)
        infos = made.probes
        if recipe.source_format is ModelFormat.SKLEARN:
            splits = SplitRowsRequest(
                recipe=recipe,
                model=source,
                probes=folder,
                names=tuple(each.name for each in infos[:2]),
            )
            beside, _ = self._call(recipe, Family.SKLEARN, make_split_rows, splits)
            infos += (beside.probe,) if beside.probe else ()
        return folder, infos

    def _answers(
        self,
        recipe: Recipe,
        format_: ModelFormat,
        model: Path,
        probes: Path,
        names: tuple[str, ...],
    ) -> tuple[Path, Cost]:
        folder = self._new("answers")
        request = AnswerRequest(
            recipe=recipe,
            format=format_,
            model=model,
            probes=probes,
            names=names,
            device="cpu",
            folder=folder,
        )
        _, cost = self._call(recipe, FAMILIES[format_], answer, request)
        return folder, cost

    def _call(
        self,
        recipe: Recipe,
        family: Family,
        function: Callable[[Request], Reply],
        request: Request,
    ) -> tuple[Reply, Cost]:
        call = Call("trial", recipe.name, family, recipe.limits, VerificationError)
        answered = self._children.call(function, request, call)
        return answered.value, answered.cost

    def _new(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))


def _told(
    recipe: Recipe, converter: str, report: ParityReport, export: Cost, parity: Cost
) -> Trial:
    noises = [each.noise for probe in report.probes for each in probe.outputs if each.noise]
    return Trial(
        model=recipe.name,
        converter=converter,
        verdict="equal" if report.passed else "differs",
        words=report.summary()[:WORDS],
        budget=report.budget,
        ratio_max=max((each.ratio_max for each in noises), default=None),
        ratio_rms=max((each.ratio_rms for each in noises), default=None),
        rows=sum(each.rows for each in report.probes),
        export=export,
        parity=parity,
    )
