"""Hold a candidate's answers against the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.arrays import load_arrays
from tasks.domain.artifact import ModelFormat
from tasks.domain.comparison import compare_probe, discriminating_outputs
from tasks.domain.errors import ParityError
from tasks.domain.noise import CEILING, FEW, Held, Truth, widened
from tasks.domain.parity import HeldTo, ParityReport
from tasks.domain.profiles import PROFILES, tolerance_for
from tasks.domain.recipe import Recipe
from tasks.domain.release import ProbeInfo
from tasks.domain.task_metric import task_metric
from tasks.domain.value import Value
from tasks.steps.float64 import MOVED, ROWS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from tasks.domain.parity import ProbeParity, TaskMetric

    Arrays = dict[str, NDArray[Any]]

_MOST_UNJUDGED = 0.25

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
    held: dict[str, dict[str, HeldTo]] = {}
    """By probe and output: what a released model was held to, in place of the profile."""
    labels: tuple[int | float | str, ...] = ()
    """The true answers to the rows of the probe ``held-out``."""


def compare(request: CompareRequest) -> ParityReport:
    """Compare the answers to every probe; a comparison that fails is a value, not an error.

    Raises:
        ParityError: One side's answers to a probe cannot be read.
    """
    outputs, profile = request.recipe.signature.outputs, request.recipe.parity.profile
    found: dict[str, ProbeParity] = {}
    metrics, discriminating, known = [], frozenset[str](), 0
    truths = {each.name: _truth(request, each.name) for each in request.probes}
    # first those that float64 answered: what it says of rounding holds for the others too
    for info in sorted(request.probes, key=lambda each: truths[each.name] is None):
        reference, answers = (
            _load(request, folder, info.name) for folder in (request.reference, request.answers)
        )
        truth = truths[info.name] or _as_noisy(request, found.values(), info.name)
        known += len(truth.rows) if isinstance(truth, Truth) else 0
        found[info.name] = compare_probe(info.name, outputs, reference, answers, profile, truth)
        discriminating |= discriminating_outputs(outputs, reference, profile, truth)
        if metric := _metric(request, found[info.name], reference, answers):
            metrics.append(metric)
    _again_by_all_probes(request, found, truths)
    return ParityReport(
        reference=request.recipe.source_format,
        candidate=request.candidate,
        runtime=request.runtime,
        profile=profile,
        tolerance=PROFILES[profile].base,
        probes=tuple(found[each.name] for each in request.probes),
        unstable=_unstable(found.values(), known),
        discriminates=bool(discriminating),
        constant_outputs=tuple(each.name for each in outputs if each.name not in discriminating),
        noise=request.float64_words,
        metrics=tuple(metrics),
    )


def _again_by_all_probes(
    request: CompareRequest,
    found: dict[str, ProbeParity],
    truths: Mapping[str, Truth | Held | None],
) -> None:
    """Compare again what fails by the noise of a few numbers: with that of the other probes."""
    outputs, profile = request.recipe.signature.outputs, request.recipe.parity.profile
    least: dict[str, tuple[float, float]] = {}
    for parity in found.values():
        for each in parity.outputs:
            if each.noise and each.noise.bound_max:
                largest, rms = least.get(each.name, (0.0, 0.0))
                least[each.name] = (
                    max(largest, each.noise.own_max),
                    max(rms, each.noise.own_rms),
                )
    for name, parity in found.items():
        truth = truths[name]
        noises = [each.noise for each in parity.outputs if each.noise and each.total < FEW]
        if not isinstance(truth, Truth) or all(each.passed for each in noises):
            continue
        reference = _load(request, request.reference, name)
        answers = _load(request, request.answers, name)
        lent = truth._replace(least=least)
        found[name] = compare_probe(name, outputs, reference, answers, profile, lent)


def _as_noisy(request: CompareRequest, found: Collection[ProbeParity], probe: str) -> Held | None:
    """Hold a probe that float64 did not answer to the noise of those that it did."""
    recipe, held = request.recipe, {}
    for spec in recipe.signature.outputs:
        own = [
            each.noise.own_max
            for parity in found
            for each in parity.outputs
            if each.name == spec.name and each.noise and each.noise.bound_max
        ]
        if own:
            tolerance = tolerance_for(recipe.parity.profile, spec, probe)
            held[spec.name] = HeldTo(tolerance=widened(tolerance, max(own)))
    return Held(held) if held else None


def _unstable(found: Collection[ProbeParity], known: int) -> str:
    """Say that too few rows could be judged, if so."""
    lost = sum(max((len(each.unjudged) for each in one.outputs), default=0) for one in found)
    if lost <= _MOST_UNJUDGED * known:
        return ""
    return (
        f"in {lost} of {known} rows the source's own float32 is more than {CEILING:.1%} away from "
        "its float64, so that no candidate in float32 can be judged"
    )


def _truth(request: CompareRequest, probe: str) -> Truth | Held | None:
    if probe in request.held:
        return Held(request.held[probe])
    if request.float64 is None or not (request.float64 / f"{probe}.npz").is_file():
        return None
    arrays = _load(request, request.float64, probe)
    rows = arrays.pop(ROWS)
    moved = {name.removeprefix(MOVED): arrays.pop(name) for name in list(arrays) if MOVED in name}
    return Truth(rows=rows, answers=arrays, moved=moved)


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
