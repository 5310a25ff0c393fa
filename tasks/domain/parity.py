"""When do two formats of one model give the same answer? The values; the rules stand beside."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import NonNegativeFloat, NonNegativeInt

from tasks.domain.artifact import ModelFormat
from tasks.domain.value import Value

ProfileName: TypeAlias = Literal["float32-conv", "float32-transformer", "trees", "exact"]

_REASONS_SAID = 3


class Tolerance(Value):
    """How far a candidate may stray from its reference.

    An element agrees when ``|c - r| <= rtol * |r| + scale * max|r of its row| + floor``.
    The row's largest finite magnitude sets the scale, so that neither logits of magnitude 1000
    nor probabilities of magnitude 0.001 need a tolerance of their own. A row is everything that
    belongs to one position of the first axis.
    """

    rtol: NonNegativeFloat
    scale: NonNegativeFloat
    floor: NonNegativeFloat


class ErrorSpread(Value):
    """How far the elements of one output stray, over the elements that are finite on both sides.

    All figures are absolute but ``max_rel``, ``cosine`` and ``budget``.
    """

    max_abs: NonNegativeFloat
    max_rel: NonNegativeFloat
    """Largest ``|c - r| / max(|r|, 1e-3 * max|r of its row|)``: tiny elements have a floor."""
    mean_abs: NonNegativeFloat
    p999_abs: NonNegativeFloat
    """The 99.9th percentile."""
    cosine: float
    """The smallest cosine of a row with its reference row; 1 where both rows are all zero."""
    budget: NonNegativeFloat
    """Largest share of an element's tolerance that its error uses: above 1 it fails."""


class RankAgreement(Value):
    """How the highest scores of each row agree, in order."""

    rows: NonNegativeInt
    top1_equal: NonNegativeInt
    top5_equal: NonNegativeInt
    """Rows whose five (or all, if fewer) best classes are equal in order."""
    ties_swapped: NonNegativeInt
    """Rows that differ only by swaps of scores closer than the tolerance; they count as equal."""


class OutputParity(Value):
    """How one output of one probe compares."""

    name: str
    passed: bool
    reason: str = ""
    """Why it did not pass, in words; empty where it passed."""
    shape: tuple[int, ...]
    expected_shape: tuple[int, ...]
    dtype: str
    expected_dtype: str
    total: NonNegativeInt
    mismatched: NonNegativeInt
    non_finite_mismatched: NonNegativeInt = 0
    """Elements that are NaN, +Inf or -Inf on one side only."""
    non_finite_agreed: NonNegativeInt = 0
    """Elements that are NaN, +Inf or -Inf on both sides alike: they agree, and are said."""
    label_ties: NonNegativeInt = 0
    """Rows whose label differs, but whose best reference scores are closer than the tolerance."""
    tolerance: Tolerance | None = None
    """What the numbers were held to; absent where only equality counts."""
    errors: ErrorSpread | None = None
    """Absent for strings and labels, and where the shapes differ."""
    ranks: RankAgreement | None = None


class ProbeParity(Value):
    """How the answers to one probe compare."""

    probe: str
    """The probe's name, such as ``pictures`` or ``random``."""
    rows: NonNegativeInt
    outputs: tuple[OutputParity, ...]

    @property
    def passed(self) -> bool:
        """Whether there was something to compare and all of it agrees."""
        return bool(self.outputs) and all(output.passed for output in self.outputs)


class ParityReport(Value):
    """The verdict on one candidate against the source framework."""

    reference: ModelFormat
    candidate: ModelFormat
    runtime: str
    """What ran the candidate, such as ``onnxruntime 1.32.0 CPUExecutionProvider``."""
    profile: ProfileName
    tolerance: Tolerance
    probes: tuple[ProbeParity, ...]
    discriminates: bool
    """Whether the reference's own answers differ between rows by more than the tolerance.

    Where they do not, any model would pass, so the report does not pass.
    """
    constant_outputs: tuple[str, ...] = ()
    """Outputs whose reference answers never differ between rows: parity says little of them."""
    on_cuda: ParityReport | None = None
    """The same comparison on a GPU, where the recipe's device is ``both``."""

    @property
    def passed(self) -> bool:
        """Whether there was something to compare, it could have failed, and all of it agrees."""
        return (
            bool(self.probes)
            and self.discriminates
            and all(probe.passed for probe in self.probes)
            and (self.on_cuda is None or self.on_cuda.passed)
        )

    def reasons(self) -> tuple[str, ...]:
        """Say in words why the report does not pass, each failed output of each probe by name."""
        if not self.probes:
            return ("nothing was compared",)
        empty = [
            f"{each.probe}: no output was compared" for each in self.probes if not each.outputs
        ]
        failed = [
            f"{each.probe}/{output.name}: {output.reason}"
            for each in self.probes
            for output in each.outputs
            if not output.passed
        ]
        same = "the reference answers every row alike, so any model would pass"
        there = [f"on CUDA: {each}" for each in (self.on_cuda.reasons() if self.on_cuda else ())]
        return (*empty, *failed, *(() if self.discriminates else (same,)), *there)

    def summary(self) -> str:
        """Say the verdict in one line: how close it is, or the first reasons why it fails."""
        what = f"{self.candidate.label} against {self.reference.label}"
        rows = sum(each.rows for each in self.probes)
        if self.passed:
            return (
                f"{what}: equal on {rows} rows of {len(self.probes)} probes, "
                f"using {self.budget:.1%} of the tolerance '{self.profile}'"
                f"{f', and {self.on_cuda.budget:.1%} on CUDA' if self.on_cuda else ''}"
            )
        reasons = self.reasons()
        more = f"; and {len(reasons) - _REASONS_SAID} more" if len(reasons) > _REASONS_SAID else ""
        return f"{what}: differs: {'; '.join(reasons[:_REASONS_SAID])}{more}"

    @property
    def budget(self) -> float:
        """The largest share of its tolerance that any element of any probe uses."""
        spreads = [each.errors for probe in self.probes for each in probe.outputs if each.errors]
        return max((each.budget for each in spreads), default=0.0)
