"""What the gate and the diagnosis say of a file with a planted fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from tasks.arrays import load_arrays, save_arrays
from tasks.bisecting import Asked, bisect, case_for
from tasks.domain.artifact import ModelFormat
from tasks.domain.diagnosis import Way
from tasks.locating import Located, locate
from tasks.runners.onnxruntime_runner import open_session, run_session
from tasks.steps.compare import CompareRequest, compare
from tests.corpus.goods import OPTIMISED, RAW, SIMPLIFIED

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.diagnosis import Bisection, Optimisation
    from tasks.domain.parity import ParityReport
    from tests.corpus.goods import Good
    from tests.corpus.planting import Fault, Right

_FILE = {"raw export": RAW, "exporter's optimisation": OPTIMISED}
"""What a fault is planted into; later stages start from the simplified file."""


def plant(fault: Fault, good: Good, folder: Path) -> Right:
    """Write the sound file with the fault; return the names of the right nodes."""
    net = onnx.load(good.folder / _FILE.get(fault.stage, SIMPLIFIED) / "model.onnx")
    del net.graph.value_info[:]  # an exporter that errs writes the shapes of its own graph
    right = fault.plant(net)
    onnx.checker.check_model(net, full_check=True)
    folder.mkdir(parents=True)
    onnx.save(net, folder / "model.onnx")
    return right


def gate(
    good: Good, model: Path, answers: Path, optimisation: Optimisation = "all"
) -> ParityReport | None:
    """Compare a file with its source on all probes.

    Returns:
        None where ONNX Runtime does not run it, so that there is nothing to compare.
    """
    answers.mkdir(parents=True)
    session = open_session(good.recipe.name, model / "model.onnx", optimisation=optimisation)
    for probe in good.probes:
        inputs = load_arrays(good.inputs / f"{probe.name}.npz")
        # not by the runner, which refuses other outputs by itself: the comparison must too
        try:
            save_arrays(answers / f"{probe.name}.npz", run_session(session, inputs))
        except Exception:  # noqa: BLE001 - whatever ONNX Runtime raises
            return None
    return compare(
        CompareRequest(
            recipe=good.recipe,
            candidate=ModelFormat.ONNX,
            runtime="onnxruntime",
            probes=good.probes,
            reference=good.reference,
            answers=answers,
            float64=good.float64,
            float64_words=good.float64_words,
        )
    )


@dataclass(frozen=True)
class Found:
    """What the diagnosis names."""

    bisection: Bisection | None
    located: Located | None


def diagnose(
    fault: Fault, good: Good, model: Path, report: ParityReport | None, scratch: Path
) -> Found:
    """Bisect the stages, then look for the node, as a release does after a failed comparison."""
    scratch.mkdir(parents=True)
    asked = Asked(
        recipe=good.recipe,
        probes=good.probes,
        inputs=good.inputs,
        answers=good.reference,
        float64=good.float64,
    )
    if report and any("missing" in output.faults for p in report.probes for output in p.outputs):
        report = None  # a release refuses the form of such a file, and has nothing to compare
    wrong = Way(
        stage="runtime optimisation", format=ModelFormat.ONNX, model=model, optimisation="all"
    )
    case = case_for(wrong, report, asked, good.children, scratch)
    found = bisect(_ways(fault, good, model), case, good.children, scratch)
    if found is None:
        return Found(None, None)
    located = locate(
        good.recipe, found, good.source, good.recipe.source_format, good.inputs, good.reference,
        good.children, scratch,
    )  # fmt: skip
    return Found(found, located)


def _ways(fault: Fault, good: Good, model: Path) -> list[Way]:
    """Return the way of each stage; from the fault's stage on, its file is the spoilt one."""
    stages = (
        ("raw export", good.folder / RAW, "off"),
        ("exporter's optimisation", good.folder / OPTIMISED, "off"),
        ("simplifier", good.folder / SIMPLIFIED, "off"),
        ("runtime optimisation", good.folder / SIMPLIFIED, "basic"),
        ("runtime optimisation", good.folder / SIMPLIFIED, "all"),
    )
    ways, spoilt = [], False
    for stage, folder, optimisation in stages:
        spoilt = spoilt or stage == fault.stage
        ways.append(
            Way.model_validate(
                {
                    "stage": stage,
                    "format": ModelFormat.ONNX,
                    "model": model if spoilt else folder,
                    "optimisation": optimisation,
                }
            )
        )
    return ways
