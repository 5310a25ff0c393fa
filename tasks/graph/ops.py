"""What a picture of a graph is made from: operators, and which feeds which."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Kind(StrEnum):
    """What an operator does, as far as its colour tells."""

    INPUT = "input"
    OUTPUT = "output"
    WEIGHTS = "weights"
    """Convolutions, matrix products, recurrent layers, trees: whatever holds what was learned."""
    ACTIVATION = "activation"
    OTHER = "other"


@dataclass(frozen=True)
class Op:
    """One operator, or one input or output of the graph."""

    title: str
    sources: tuple[int, ...]
    """Positions of the operators whose results it takes, in a list that is in running order."""
    kind: Kind = Kind.OTHER
    detail: str = ""
    """Such as ``3x3 /2``, with a true multiplication sign."""
    shape: str = ""
    """Of its first result, with ``TIMES`` between the sizes; empty where it is not known."""
    weights: int = 0


@dataclass(frozen=True)
class Row:
    """One line of a box: an operator, with the activation that follows it."""

    text: str
    shape: str
    kind: Kind


@dataclass(frozen=True)
class Box:
    """Operators that follow each other without a branch."""

    rows: tuple[Row, ...]
    sources: tuple[int, ...]
    """Positions of other boxes of the panel; ``ENTRY`` stands for what came before the panel."""
    shape: str
    weights: int


ENTRY = -1
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Panel:
    """A part of the graph that one tensor enters and one leaves; drawn as it is."""

    boxes: tuple[Box, ...]

    @property
    def weights(self) -> int:
        """The number of weights of all boxes."""
        return sum(box.weights for box in self.boxes)


@dataclass(frozen=True)
class Group:
    """Panels that follow each other, and how often they do so."""

    panels: tuple[Panel, ...]
    times: int = 1
    weights: int = field(default=0, compare=False)
    """The number of weights of all repetitions together."""


def consumers(ops: Sequence[Op]) -> list[list[int]]:
    """Return, for each operator, the positions of those that take its results."""
    found: list[list[int]] = [[] for _ in ops]
    for position, op in enumerate(ops):
        for source in dict.fromkeys(op.sources):
            if source >= 0:
                found[source].append(position)
    return found
