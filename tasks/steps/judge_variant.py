"""Hold a variant's answers against the source's: its numbers, and how it does the task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from tasks.arrays import load_arrays
from tasks.domain.artifact import ModelFormat
from tasks.domain.comparison import discriminating_outputs
from tasks.domain.parity import ParityReport
from tasks.domain.profiles import PROFILES
from tasks.domain.recipe import Recipe
from tasks.domain.release import ProbeInfo
from tasks.domain.value import Value
from tasks.domain.variant_comparison import agreement_of, compare_variant, finite_faults
from tasks.domain.variant_rules import REAL_PROBES
from tasks.domain.variants import Agreement, VariantSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


class JudgeRequest(Value):
    """Whose answers are compared with whose."""

    recipe: Recipe
    spec: VariantSpec
    runtime: str
    """What ran the variant."""
    probes: tuple[ProbeInfo, ...]
    reference: Path
    """Folder of the reference's answers, ``<probe>.npz`` each."""
    answers: Path
    """Folder of the variant's, likewise."""
    judged: PositiveInt | None = None
    """How many of the real probe's rows judge it, from the first; None: all."""
    held_out: Path | None = None
    """What training kept back, with ``labels``; its first rows are the probe ``held-out``."""


class JudgeReply(Value):
    """The verdict on its numbers, and what is needed for the one on its task."""

    report: ParityReport
    agreement: Agreement


def judge_variant(request: JudgeRequest) -> JudgeReply:
    """Compare the answers to every probe; what strays is a value, not an error.

    Int8 saturates beyond the range that it was calibrated on, by design: what is drawn at random
    or stands at the edge of the domain must only be answered, in shape and without NaN.
    """
    outputs, kind = request.recipe.signature.outputs, request.spec.kind
    compared, real, anywhere = [], [], []
    discriminating: frozenset[str] = frozenset()
    for info in request.probes:
        pair = _pair(request, info.name)
        anywhere.append((info.name, pair))
        if info.name in REAL_PROBES:
            real.append((info.name, pair))
        elif kind == "int8":
            fault = finite_faults(info.name, outputs, *pair)
            compared += [fault] if fault else []
            continue
        compared.append(compare_variant(info.name, outputs, *pair, kind))
        discriminating |= discriminating_outputs(outputs, pair[0], kind)
    report = ParityReport(
        reference=request.recipe.source_format,
        candidate=ModelFormat.ONNX,
        runtime=request.runtime,
        profile=kind,
        tolerance=PROFILES[kind].base,
        probes=tuple(compared),
        discriminates=bool(discriminating),
        constant_outputs=tuple(each.name for each in outputs if each.name not in discriminating),
    )
    return JudgeReply(report=report, agreement=_agreement(request, report, real or anywhere))


def _pair(request: JudgeRequest, probe: str) -> tuple[Arrays, Arrays]:
    reference, answers = (
        load_arrays(folder / f"{probe}.npz") for folder in (request.reference, request.answers)
    )
    if probe not in REAL_PROBES or request.judged is None:
        return reference, answers
    rows = request.judged
    return tuple(
        {name: each[:rows] for name, each in side.items()} for side in (reference, answers)
    )  # type: ignore[return-value]


def _agreement(
    request: JudgeRequest, report: ParityReport, parts: list[tuple[str, tuple[Arrays, Arrays]]]
) -> Agreement:
    names = [name for name, _ in parts]
    on = ", ".join(names)
    if not report.passed and _misshapen(report):
        return Agreement(rows=0, top1_equal=0, on=on)
    recipe = request.recipe
    labels = _labels(request, parts[0][1][0]) if names == ["held-out"] else None
    pairs = [pair for _, pair in parts]
    return agreement_of(recipe.signature.outputs, pairs, on, recipe.parity.profile, labels)


def _misshapen(report: ParityReport) -> bool:
    return any(
        each.shape != each.expected_shape or not each.total
        for probe in report.probes
        for each in probe.outputs
    )


def _labels(request: JudgeRequest, reference: Arrays) -> NDArray[np.generic] | None:
    if request.held_out is None:
        return None
    labels = load_arrays(request.held_out).get("labels")
    rows = len(next(iter(reference.values())))
    return None if labels is None else labels[:rows]
