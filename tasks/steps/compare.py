"""Hold a candidate's answers against the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.arrays import load_arrays
from tasks.domain.artifact import ModelFormat
from tasks.domain.comparison import compare_probe, discriminating_outputs
from tasks.domain.errors import ParityError
from tasks.domain.noise import Held, Truth
from tasks.domain.parity import ParityReport, Tolerance
from tasks.domain.profiles import PROFILES
from tasks.domain.recipe import Recipe
from tasks.domain.release import ProbeInfo
from tasks.domain.task_metric import task_metric
from tasks.domain.value import Value
from tasks.steps.float64 import ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.parity import ProbeParity, TaskMetric

    Arrays = dict[str, NDArray[Any]]

HELD_OUT = "held-out"
"""The probe whose true answers are known, where the source was trained."""


class CompareRequest(Value):
    """Whose answers are compared with whose."""

    recipe: Recipe
    candidate: ModelFormat
    runtime: str
    """What ran the candidate."""
    probes: tuple[ProbeInfo, ...]
    reference: Path
    """Folder of the reference's answers, ``<probe>.npz`` each."""
    answers: Path
    """Folder of the candidate's, likewise."""
    float64: Path | None = None
    """Folder of the source's answers in float64; absent where it gave none."""
    float64_words: str = ""
    held: dict[str, dict[str, Tolerance]] = {}
    """By probe and output: what a released model was held to, in place of the profile."""
    labels: tuple[int | float | str, ...] = ()
    """The true answers to the rows of the probe ``held-out``."""


def compare(request: CompareRequest) -> ParityReport:
    """Compare the answers to every probe; a comparison that fails is a value, not an error.

    Raises:
        ParityError: One side's answers to a probe cannot be read.
    """
    outputs, profile = request.recipe.signature.outputs, request.recipe.parity.profile
    probes, metrics, discriminating = [], [], frozenset[str]()
    for info in request.probes:
        reference, answers = (
            _load(request, folder, info.name) for folder in (request.reference, request.answers)
        )
        truth = _truth(request, info.name)
        probes.append(compare_probe(info.name, outputs, reference, answers, profile, truth))
        discriminating |= discriminating_outputs(outputs, reference, profile, truth)
        if metric := _metric(request, probes[-1], reference, answers):
            metrics.append(metric)
    return ParityReport(
        reference=request.recipe.source_format,
        candidate=request.candidate,
        runtime=request.runtime,
        profile=profile,
        tolerance=PROFILES[profile].base,
        probes=tuple(probes),
        discriminates=bool(discriminating),
        constant_outputs=tuple(each.name for each in outputs if each.name not in discriminating),
        noise=request.float64_words,
        metrics=tuple(metrics),
    )


def _truth(request: CompareRequest, probe: str) -> Truth | Held | None:
    if probe in request.held:
        return Held(request.held[probe])
    if request.float64 is None or not (request.float64 / f"{probe}.npz").is_file():
        return None
    arrays = _load(request, request.float64, probe)
    return Truth(rows=arrays.pop(ROWS), answers=arrays)


def _metric(
    request: CompareRequest, parity: ProbeParity, reference: Arrays, answers: Arrays
) -> TaskMetric | None:
    if parity.probe != HELD_OUT or not request.labels:
        return None
    budget = PROFILES[request.recipe.parity.profile].metric_budget
    outputs = request.recipe.signature.outputs
    return task_metric(outputs, np.array(request.labels), reference, answers, parity, budget)


def _load(request: CompareRequest, folder: Path, probe: str) -> Arrays:
    try:
        return load_arrays(folder / f"{probe}.npz")
    except (OSError, ValueError) as error:
        raise ParityError(
            f"{request.recipe.name}: parity: the answers to probe '{probe}' cannot be read: "
            f"{error}. Run the release again."
        ) from error
