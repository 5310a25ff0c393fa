"""Where a candidate goes wrong: at which stage, in which node, and how to see it for oneself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import NonNegativeFloat, NonNegativeInt

from tasks.domain.artifact import ModelFormat
from tasks.domain.value import Value

Stage: TypeAlias = Literal[
    "raw export",
    "exporter's optimisation",
    "simplifier",
    "runtime optimisation",
    "execution provider",
    "TensorFlow",
]
"""What a model goes through on its way from the source framework, in order."""

Optimisation: TypeAlias = Literal["off", "basic", "all"]
"""How far ONNX Runtime may rewrite the graph (``ORT_DISABLE_ALL``, ``_BASIC``, ``_ALL``)."""


class Way(Value):
    """One way to come by answers: a model's files, and how they are run."""

    stage: Stage
    """What was done last to get here."""
    step: str = ""
    """Which part of the stage: an optimiser's pass, a level, a provider; empty for all of it."""
    format: ModelFormat
    model: Path
    """The model's folder."""
    optimisation: Optimisation = "off"
    """Of meaning for ONNX alone."""
    device: Literal["cpu", "cuda"] = "cpu"

    def __str__(self) -> str:
        """Write it as ``exporter's optimisation (fold-constants)``."""
        return f"{self.stage} ({self.step})" if self.step else self.stage


class StageVerdict(Value):
    """How the answers of one way compare with the source's own."""

    stage: Stage
    step: str = ""
    passed: bool | None
    """None: it was not run."""
    words: str
    """The comparison in one line, or why it was not run."""


class Bisection(Value):
    """The first stage after which the answers are wrong."""

    good: Way | None
    """The last way that answers right; None where the raw export is wrong already, so that only
    the source framework itself is right."""
    bad: Way
    """The first way that answers wrong."""
    probe: str
    """The probe that shows the fault."""
    row: NonNegativeInt
    """The row of the probe that shows it most."""
    verdicts: tuple[StageVerdict, ...]
    """Every way that was tried, in order."""


class Culprit(Value):
    """The first node whose output differs, though all that it reads is right."""

    node: str
    """Its name in the wrong model; where it has none, the name of its first output."""
    op_type: str
    """Such as ``Conv``, with its domain where that is not the default one."""
    tensor: str
    """The output that differs."""
    layer: str = ""
    """The source framework's own name of the layer, such as ``layer1.0.bn2``, where known."""
    max_abs: NonNegativeFloat | None = None
    """Largest error of that tensor; None where one side has another shape or is not finite."""
    words: str
    """What differs, in one line."""


class Shrunk(Value):
    """The simplest input found that still shows the fault."""

    probe: str
    row: NonNegativeInt
    """Where it began: a row of that probe."""
    base: str
    """The row that passes: of which plain probe it is, or ``random-0`` and so on."""
    against: ModelFormat
    """Whose answers were taken for right: the source's, or for TensorFlow the ONNX file's."""
    differing: NonNegativeInt
    """Elements in which it differs from the row that passes."""
    elements: NonNegativeInt
    minimal: bool
    """Whether none of these can be left out; else the budget ended before."""
    rounds: NonNegativeInt
    rows: NonNegativeInt
    """Rows that were tried."""
    folder: str = ""
    """Folder of ``inputs.npz``, ``expected.npz``, ``got.npz`` below the quarantine's prefix."""
    words: str


class Diagnosis(Value):
    """What is known of a failed comparison beyond that it failed."""

    candidate: ModelFormat
    converter: str
    stage: Stage
    step: str = ""
    verdicts: tuple[StageVerdict, ...]
    culprit: Culprit | None = None
    """Absent where no single node could be found; ``words`` says why."""
    nodes: NonNegativeInt = 0
    """How many nodes the cut-out sub-graph has; 0 where none was cut."""
    reproducer: str = ""
    """Folder of ``reproduce.py`` and what it needs, below the quarantine's prefix."""
    shrunk: Shrunk | None = None
    """Absent where no input was shrunk: the row alone passes, or no other row does."""
    words: str
    """The finding in one or two sentences, for the log and the report."""
