"""When do two formats of one model give the same answer? The values; the rules stand beside."""

from __future__ import annotations

from datetime import date
from typing import Literal, TypeAlias

from pydantic import NonNegativeFloat, NonNegativeInt

from tasks.domain.artifact import ModelFormat
from tasks.domain.matrix import Matrix
from tasks.domain.value import Value

ProfileName: TypeAlias = Literal[
    "float32-conv", "float32-transformer", "trees", "float16", "bfloat16", "int8", "exact"
]

FaultKind: TypeAlias = Literal[
    "missing", "shape", "dtype", "non-finite", "numbers", "ranks", "labels", "task-metric"
]
"""What can be wrong with an output: ``missing`` is one that is not there, or one too many."""

DECADES = tuple(10.0**power for power in range(-9, 1))
"""Where the decades of a histogram begin; the bins before are for no error and for less."""

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


class HeldTo(Value):
    """What one output of one probe was held to, so that a replay can be held to the same."""

    tolerance: Tolerance
    unjudged: tuple[NonNegativeInt, ...] = ()
    """Rows whose numbers say nothing; see ``OutputParity.unjudged``."""


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
    rmse: NonNegativeFloat | None = None
    """Root of the mean squared error."""
    histogram: tuple[NonNegativeInt, ...] = ()
    """How many errors are of which size, over the largest of their row: none at all, below 1e-9,
    then decade by decade up to 1, and 1 or more (``DECADES``)."""


class NoiseParity(Value):
    """How far a candidate, and the source's own float32, are from the source in float64.

    Errors are over the largest magnitude of their row; a ratio of 1 means "as good as the
    source itself". See ``tasks.domain.noise``.
    """

    rows: NonNegativeInt
    """How many rows float64 answered, and are held to the bounds."""
    left_out: NonNegativeInt = 0
    """Rows in which float64 went another way than float32: the profile decides there."""
    own_max: NonNegativeFloat
    own_rms: NonNegativeFloat
    error_max: NonNegativeFloat
    error_rms: NonNegativeFloat
    ratio_max: NonNegativeFloat
    ratio_rms: NonNegativeFloat
    bound_max: NonNegativeFloat | None = None
    """Absent where the figures do not decide: a format that rounds on purpose."""
    bound_rms: NonNegativeFloat | None = None
    mismatched: NonNegativeInt = 0
    """Elements beyond ``bound_max``."""

    @property
    def passed(self) -> bool:
        """Whether both ratios keep within their bounds, where they have any."""
        return (self.bound_max is None or self.ratio_max <= self.bound_max) and (
            self.bound_rms is None or self.ratio_rms <= self.bound_rms
        )

    @property
    def budget(self) -> float:
        """The larger share of a bound that is used; 0 where there is none."""
        used = (
            self.ratio_max / self.bound_max if self.bound_max else 0.0,
            self.ratio_rms / self.bound_rms if self.bound_rms else 0.0,
        )
        return max(used)


class RowError(Value):
    """One row of an output, among those that stray most."""

    row: NonNegativeInt
    max_abs: NonNegativeFloat
    rmse: NonNegativeFloat
    budget: NonNegativeFloat
    """Largest share of an element's tolerance that is used in it."""


class NonFiniteMap(Value):
    """Where an output is NaN or infinite, on either side."""

    reference_nan: NonNegativeInt = 0
    reference_infinite: NonNegativeInt = 0
    candidate_nan: NonNegativeInt = 0
    candidate_infinite: NonNegativeInt = 0
    row_count: NonNegativeInt
    """In how many rows."""
    rows: tuple[NonNegativeInt, ...]
    """The first of them."""
    element_count: NonNegativeInt
    """At how many positions of the flattened row, such as classes."""
    elements: tuple[NonNegativeInt, ...]
    """The first of them."""


class Waived(Value):
    """Why a comparison that fails does not stop the release, and who answers for that."""

    reason: str
    owner: str
    expires: date


class TaskMetric(Value):
    """How well both answer, where the true answers are known."""

    probe: str
    name: str
    """``accuracy``, or ``r2`` for numbers."""
    output: str
    rows: NonNegativeInt
    source: float
    candidate: float
    budget: NonNegativeFloat
    """How much worse the candidate may be; rows whose best scores tie come to it."""
    waived: Waived | None = None

    @property
    def passed(self) -> bool:
        """Whether the candidate is worse by no more than the budget."""
        return self.candidate >= self.source - self.budget

    @property
    def words(self) -> str:
        """Say both figures in one line."""
        return (
            f"{self.probe}/{self.output}: {self.name} {self.candidate:.4f}, the source's is "
            f"{self.source:.4f} on {self.rows} rows (at most {self.budget:.4f} less)"
        )


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
    noise: NoiseParity | None = None
    """Absent where the source did not answer in float64, or that tells nothing of rounding."""
    unjudged: tuple[NonNegativeInt, ...] = ()
    """Rows whose numbers are not judged, since the source itself, in float32, is far from its own
    float64 there: it went another way at a threshold, or rounding grows without bound."""
    faults: tuple[FaultKind, ...] = ()
    """What is wrong, by kind; empty where it passed."""
    non_finite: NonFiniteMap | None = None
    """Where it is NaN or infinite; absent where both sides are finite."""
    worst_rows: tuple[RowError, ...] = ()
    """The rows that use most of their tolerance, the worst first."""
    waived: Waived | None = None
    """Present where it fails, and the recipe waives all that fails in it."""

    @property
    def budget(self) -> float | None:
        """The largest share of a limit that it uses; None where nothing was measured."""
        if self.errors is None:
            return None
        return max(self.errors.budget, self.noise.budget if self.noise else 0.0)


class ProbeParity(Value):
    """How the answers to one probe compare."""

    probe: str
    """The probe's name, such as ``pictures`` or ``random``."""
    rows: NonNegativeInt
    outputs: tuple[OutputParity, ...]

    @property
    def passed(self) -> bool:
        """Whether there was something to compare and all of it agrees, or is waived."""
        return bool(self.outputs) and all(each.passed or each.waived for each in self.outputs)


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
    unstable: str = ""
    """Why the source's numbers say too little, in words; the report does not pass then."""
    noise: str = ""
    """How the source answered in float64, or why it did not, in words."""
    metrics: tuple[TaskMetric, ...] = ()
    """How well both answer, where the true answers are known."""
    notes: tuple[str, ...] = ()
    """What else there is to know, such as a waiver that is no longer needed."""
    matrix: Matrix = Matrix()
    """Other ways to run the same files; empty in releases of before there was one."""
    on_cuda: ParityReport | None = None
    """The same comparison on a GPU, where the recipe's device is ``both``."""

    @property
    def passed(self) -> bool:
        """Whether there was something to compare, it could have failed, and all of it agrees.

        What the recipe waives does not count; ``waived`` has it.
        """
        return (
            bool(self.probes)
            and self.discriminates
            and not self.unstable
            and all(probe.passed for probe in self.probes)
            and all(each.passed or each.waived for each in self.metrics)
            and self.matrix.passed
            and (self.on_cuda is None or self.on_cuda.passed)
        )

    @property
    def waived(self) -> tuple[tuple[str, Waived], ...]:
        """What fails and is waived: its place and what is wrong there, and by whom."""
        outputs = [
            (f"{probe.probe}/{each.name}: {each.reason}", each.waived)
            for probe in self.probes
            for each in probe.outputs
            if each.waived
        ]
        return (*outputs, *((each.words, each.waived) for each in self.metrics if each.waived))

    @property
    def held(self) -> dict[str, dict[str, HeldTo]]:
        """By probe and output: what its numbers were held to, with the noise that was measured."""
        return {
            probe.probe: {
                each.name: HeldTo(tolerance=each.tolerance, unjudged=each.unjudged)
                for each in probe.outputs
                if each.tolerance
            }
            for probe in self.probes
        }

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
            if not output.passed and not output.waived
        ]
        failed += [each.words for each in self.metrics if not each.passed and not each.waived]
        same = "the reference answers every row alike, so any model would pass"
        elsewhere = self.matrix.reasons() if not empty and not failed else ()
        failed += [self.unstable] if self.unstable else []
        there = [f"on CUDA: {each}" for each in (self.on_cuda.reasons() if self.on_cuda else ())]
        return (*empty, *failed, *(() if self.discriminates else (same,)), *elsewhere, *there)

    def summary(self) -> str:
        """Say the verdict in one line: how close it is, or the first reasons why it fails."""
        what = f"{self.candidate.label} against {self.reference.label}"
        rows = sum(each.rows for each in self.probes)
        if self.passed:
            return (
                f"{what}: {self._verdict} on {rows} rows of {len(self.probes)} probes, "
                f"using {self.budget:.1%} of {self._limit}{self._told}"
                f"{f', and {self.on_cuda.budget:.1%} on CUDA' if self.on_cuda else ''}"
            )
        reasons = self.reasons()
        more = f"; and {len(reasons) - _REASONS_SAID} more" if len(reasons) > _REASONS_SAID else ""
        return f"{what}: differs: {'; '.join(reasons[:_REASONS_SAID])}{more}"

    @property
    def _verdict(self) -> str:
        count = len(self.waived)
        return f"equal but for {count} waived comparison{'s' * (count > 1)}" if count else "equal"

    @property
    def _limit(self) -> str:
        gated = any(
            each.noise and each.noise.bound_max for probe in self.probes for each in probe.outputs
        )
        return f"the {'noise floor and ' if gated else ''}tolerance '{self.profile}'"

    @property
    def _told(self) -> str:
        alike = sum(each.non_finite_agreed for probe in self.probes for each in probe.outputs)
        return f"; NaN or infinite on both sides alike: {alike:,}" if alike else ""

    @property
    def budget(self) -> float:
        """The largest share of its limit that any element of any probe uses, unless waived."""
        shares = [each.budget for probe in self.probes for each in probe.outputs if not each.waived]
        return max((each for each in shares if each is not None), default=0.0)
