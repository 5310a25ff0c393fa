"""Fill the matrix of one candidate, after its comparison on all rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import IsolationError, TimeLimitError, VerificationError
from tasks.domain.matrix import Cell, Matrix
from tasks.isolation import Call, Children, Family

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.domain.diagnosis import Optimisation
    from tasks.domain.parity import ParityReport
    from tasks.domain.recipe import Limits, Recipe
    from tasks.steps.matrix import CellRequest

_PROBES = 2
_REFERENCE_SECONDS = 20
_BEYOND_NUMBERS = {"missing", "shape", "dtype", "non-finite"}
_LEVELS: tuple[Optimisation, ...] = ("off", "basic", "all")


@dataclass(frozen=True)
class MatrixJob:
    """The candidate, and what the source answers."""

    recipe: Recipe
    model: Path
    inputs: Path
    """Folder of the probes, ``<probe>.npz`` each."""
    answers: Path
    """Folder of the source's answers, likewise."""
    children: Children


def fill_matrix(job: MatrixJob, report: ParityReport) -> Matrix:
    """Run every way that runs here, on a few rows of the probes that tell most.

    Where the comparison failed already, nothing more is run: it is the bisection's turn.

    Raises:
        ConfigurationError: The recipe asks for CUDA, and it is not there.
    """
    from tasks.steps.matrix import CellRequest, rows_of

    probes = _telling(report)
    if not probes or not report.passed:
        return Matrix(cells=(_own_cell(job.recipe, report),))
    request = CellRequest(
        recipe=job.recipe,
        model=job.model,
        probes=probes,
        inputs=job.inputs,
        answers=job.answers,
        held=report.held,
        waived=frozenset(
            (probe.probe, each.name)
            for probe in report.probes
            for each in probe.outputs
            if each.waived
        ),
    )
    if report.candidate is ModelFormat.ONNX:
        cells = tuple(_onnx_cells(job, request, report))
    else:
        cells = tuple(_tensorflow_cells(job, report))
    most = rows_of(job.recipe)
    rows = sum(min(most, each.rows) for each in report.probes if each.probe in probes)
    return Matrix(probes=probes, rows=rows, cells=cells)


def _telling(report: ParityReport) -> tuple[str, ...]:
    """Return the probes whose worst element uses most of its tolerance."""
    used = {
        probe.probe: max((each.errors.budget for each in probe.outputs if each.errors), default=0)
        for probe in report.probes
    }
    return tuple(sorted(used, key=lambda name: -used[name])[:_PROBES])


def _own_cell(recipe: Recipe, report: ParityReport) -> Cell:
    """Return the cell of the comparison itself."""
    onnx = report.candidate is ModelFormat.ONNX
    rows = sum(each.rows for each in report.probes)
    return Cell(
        runtime="ONNX Runtime" if onnx else report.candidate.label,
        level="all" if onnx else "",
        provider="CUDA" if recipe.device == "cuda" else "CPU",
        passed=report.passed,
        words=f"equal on {rows} rows" if report.passed else "differs, as told above",
        budget=report.budget,
    )


def _onnx_cells(job: MatrixJob, request: CellRequest, report: ParityReport) -> Iterator[Cell]:
    from tasks.steps.matrix import answer_in_runtime, missing_provider

    call = Call("matrix", job.recipe.name, Family.ONNXRUNTIME, job.recipe.limits, VerificationError)
    own = _own_cell(job.recipe, report)
    for level in _LEVELS:
        if (level, own.provider) == ("all", "CPU"):
            yield own
            continue
        cell = request.model_copy(update={"level": level})
        try:
            yield _judged(job.recipe, job.children.call(answer_in_runtime, cell, call).value)
        except IsolationError as error:
            yield Cell(runtime="ONNX Runtime", level=level, passed=False, words=str(error))
    if job.recipe.device == "cuda":
        yield own
    elif job.recipe.device == "both":
        words = "not run here: a GPU worker compares it, see 'on_cuda'"
        yield own.model_copy(
            update={"provider": "CUDA", "passed": None, "words": words, "budget": None}
        )
    else:
        yield job.children.call(missing_provider, request, call).value
    yield _reference_cell(job, request, replace(call, limits=_short(job.recipe)))


def _judged(recipe: Recipe, cell: Cell) -> Cell:
    """Return the cell; told, but not judged, where its numbers alone differ from a SavedModel.

    That has no float64 by which rounding could be told from a fault, and another level rounds
    otherwise: basic-pitch takes logarithms of next to nothing.
    """
    numbers_alone = "numbers" in cell.faults and not _BEYOND_NUMBERS & set(cell.faults)
    if cell.passed or recipe.source_format is not ModelFormat.SAVED_MODEL or not numbers_alone:
        return cell
    words = f"not judged, for a SavedModel has no float64: {cell.words}"
    return cell.model_copy(update={"passed": None, "words": words})


def _reference_cell(job: MatrixJob, request: CellRequest, call: Call) -> Cell:
    from tasks.steps.matrix import REFERENCE, answer_by_reference

    try:
        return job.children.call(answer_by_reference, request, call).value
    except TimeLimitError:
        words = f"not run: it takes more than {call.limits.timeout_seconds} s"
    except (IsolationError, VerificationError) as error:
        words = f"not run: it cannot: {error}"
    return Cell(runtime=REFERENCE, passed=None, words=words)


def _short(recipe: Recipe) -> Limits:
    seconds = min(_REFERENCE_SECONDS, recipe.limits.timeout_seconds)
    return recipe.limits.model_copy(update={"timeout_seconds": seconds})


def _tensorflow_cells(job: MatrixJob, report: ParityReport) -> Iterator[Cell]:
    own = _own_cell(job.recipe, report)
    yield own
    if own.provider == "CPU":
        words = f"not run: the recipe's device is '{job.recipe.device}'"
        yield own.model_copy(
            update={"provider": "CUDA", "passed": None, "words": words, "budget": None}
        )
    yield Cell(runtime="TFLite", passed=None, words="not run: not made")
