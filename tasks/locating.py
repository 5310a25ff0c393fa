"""From the stage that breaks the answers to the node: children do the work, no flow needed.

Both sides write every tensor that they make of the rows that show the fault; the first node that
differs, though all that it reads is right, is the culprit. See docs/parity/locate.md.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ParityError, ReleaseError
from tasks.isolation import Call, Children, Family
from tasks.runners import FAMILIES
from tasks.tracing.find_culprit import FindRequest, Located, find_culprit
from tasks.tracing.keras_trace import trace_keras
from tasks.tracing.onnx_trace import TraceOnnxRequest, trace_onnx
from tasks.tracing.sklearn_trace import trace_sklearn
from tasks.tracing.torch_trace import TraceSourceRequest, trace_torch

if TYPE_CHECKING:
    from tasks.domain.diagnosis import Bisection, Way
    from tasks.domain.recipe import Recipe

__all__ = ["Located", "locate"]

_TRACERS = {
    ModelFormat.TORCH: trace_torch,
    ModelFormat.KERAS: trace_keras,
    ModelFormat.SKLEARN: trace_sklearn,
}


def locate(  # noqa: PLR0913, PLR0917 - what diagnosing has at hand, no more
    recipe: Recipe,
    bisection: Bisection,
    source_model_folder: Path,
    source_format: ModelFormat,
    probes_folder: Path,
    reference: Path,
    children: Children,
    scratch: Path,
) -> Located:
    """Find the first wrong node of a model, cut it out, and write a reproducer for it.

    Args:
        recipe: What is made.
        bisection: The last right way and the first wrong one, and the row that shows it.
        source_model_folder: The source model.
        source_format: Its format.
        probes_folder: ``<probe>.npz`` each.
        reference: The source's answers, likewise.
        children: Where everything runs.
        scratch: Where folders may be made; the reproducer is in one of them.

    Returns:
        What was found. Where it could not be looked for, that is said in its words; it never
        fails itself, for the comparison's own verdict must be heard.
    """
    job = _Job(recipe, bisection, probes_folder, reference, children, scratch)
    try:
        return job.run(source_model_folder, source_format)
    except (ReleaseError, OSError) as error:
        return Located(culprit=None, words=f"no node could be looked for: {error}")


class _Job:
    def __init__(
        self,
        recipe: Recipe,
        bisection: Bisection,
        probes: Path,
        reference: Path,
        children: Children,
        scratch: Path,
    ) -> None:
        self._recipe = recipe
        self._bisection = bisection
        self._probe = probes / f"{bisection.probe}.npz"
        self._reference = reference / f"{bisection.probe}.npz"
        self._children = children
        self._scratch = scratch
        self._rows = _rows(self._probe, bisection.row)

    def run(self, source: Path, source_format: ModelFormat) -> Located:
        good, bad = self._bisection.good, self._bisection.bad
        if bad.format is not ModelFormat.ONNX:
            return Located(
                culprit=None,
                words=f"{bad.format.label} models have no nodes that are mapped to ONNX's",
            )
        wrong = self._folder("wrong")
        self._trace_onnx(bad, wrong)
        right = self._folder("right")
        if good is None:
            self._trace_source(source, source_format, right)
        else:
            self._trace_onnx(good, right)
        rewritten = bad.optimisation != "off" and (wrong / "model.onnx").is_file()
        request = FindRequest(
            recipe=self._recipe,
            model=wrong if rewritten else bad.model,
            wrong=wrong,
            right=right,
            by_name=good is not None,
            reference=self._reference,
            rows=self._rows,
            folder=self._folder("reproducer"),
        )
        return self._children.call(find_culprit, request, self._call(Family.ONNXRUNTIME)).value

    def _trace_onnx(self, way: Way, folder: Path) -> None:
        request = TraceOnnxRequest(
            where=self._recipe.name,
            model=way.model,
            optimisation=way.optimisation,
            device=way.device,
            probe=self._probe,
            rows=self._rows,
            folder=folder,
        )
        self._children.call(trace_onnx, request, self._call(Family.ONNXRUNTIME))

    def _trace_source(self, model: Path, format_: ModelFormat, folder: Path) -> None:
        request = TraceSourceRequest(
            recipe=self._recipe, model=model, probe=self._probe, rows=self._rows, folder=folder
        )
        tracer = _TRACERS.get(format_)
        if tracer is None:
            raise ParityError(f"{self._recipe.name}: {format_.label} has no layers to compare with")
        self._children.call(tracer, request, self._call(FAMILIES[format_]))

    def _call(self, family: Family) -> Call:
        limits = self._recipe.limits
        return Call("locate", self._recipe.name, family, limits, ParityError)

    def _folder(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._scratch))


def _rows(probe: Path, row: int) -> tuple[int, ...]:
    """Return the row that shows the fault and another: a fault may lie in how rows mix."""
    import numpy as np

    with np.load(probe, allow_pickle=False) as file:
        count = len(file[file.files[0]])
    return (0, row) if row else tuple(range(min(2, count)))
