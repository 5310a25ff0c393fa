"""The matrix: does the model answer rightly in every runtime, at every level, on every device?"""

from __future__ import annotations

from pydantic import NonNegativeFloat, NonNegativeInt

from tasks.domain.value import Value


class Cell(Value):
    """One way to run the released files, and how its answers compare with the source's."""

    runtime: str
    """Such as ``ONNX Runtime`` or ``TensorFlow SavedModel``."""
    level: str = ""
    """Graph optimisation: ``off``, ``basic`` or ``all``; empty where there is no choice."""
    provider: str = "CPU"
    passed: bool | None
    """None: it was not run, or its numbers cannot be judged; ``words`` says why."""
    words: str
    """The comparison in one line, or ``not run: why``."""
    faults: tuple[str, ...] = ()
    """What is wrong with its outputs, as ``tasks.domain.parity.FaultKind`` names it."""
    budget: NonNegativeFloat | None = None
    """Largest share of its tolerance that an element uses; None where nothing was compared."""

    def __str__(self) -> str:
        """Write it as ``ONNX Runtime, optimisation off, CPU``."""
        level = f"optimisation {self.level}" if self.level else ""
        return ", ".join(filter(None, (self.runtime, level, self.provider)))


class Matrix(Value):
    """Every way to run one format of a release."""

    probes: tuple[str, ...] = ()
    """The probes from which the rows are."""
    rows: NonNegativeInt = 0
    """How many rows each cell answered; the cell of the comparison itself answered all."""
    cells: tuple[Cell, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no cell that was run differs."""
        return all(each.passed is not False for each in self.cells)

    def reasons(self) -> tuple[str, ...]:
        """Name each cell that differs, with the difference."""
        return tuple(f"{each}: {each.words}" for each in self.cells if each.passed is False)
