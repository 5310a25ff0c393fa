"""The optimising passes of an export: which ran, what they did, and which were left out."""

from __future__ import annotations

from typing import Literal, TypeAlias

from tasks.domain.value import Value

PassStage: TypeAlias = Literal["exporter's optimisation", "simplifier"]
"""Whose pass it is: the converter's own, or one that the recipe asks for behind it."""

SimplifierPass: TypeAlias = Literal[
    "fold-constants",
    "eliminate-identity",
    "common-subexpressions",
    "deduplicate-initializers",
    "remove-unused",
]
"""What ``simplify`` in a recipe may name; ``tasks.steps.simplify`` says what each is."""


class PassRun(Value):
    """One pass that was asked for, and what came of it."""

    stage: PassStage
    name: str
    changed: bool | None
    """Whether it changed the graph; None where the tool does not tell."""
    error: str = ""
    """Why it could not be run, in words: the export went on without it. Empty where it ran."""

    @property
    def may_matter(self) -> bool:
        """Whether leaving it out may give another graph."""
        return not self.error and self.changed is not False


class PassPlan(Value):
    """Which passes to run; None stands for all that the converter has, or the recipe names."""

    exporter: tuple[str, ...] | None = None
    simplifier: tuple[str, ...] | None = None

    @classmethod
    def of(cls, runs: tuple[PassRun, ...]) -> PassPlan:
        """Return the plan that runs these and no others."""
        return cls(
            exporter=tuple(each.name for each in runs if each.stage == "exporter's optimisation"),
            simplifier=tuple(each.name for each in runs if each.stage == "simplifier"),
        )


EVERY_PASS = PassPlan()


class SkippedPass(Value):
    """A pass without which a release went on."""

    stage: PassStage
    name: str
    converter: str
    reason: str
    """What it did to the answers, or why it could not be run."""

    def __str__(self) -> str:
        """Write it as a note for the manifest, the report and the log."""
        whose = f"converter {self.converter}" if self.stage != "simplifier" else "the simplifier"
        return f"pass '{self.name}' of {whose}: {self.reason}; skipped"
