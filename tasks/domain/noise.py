"""The noise floor: how far float32 itself strays from float64, and how far a candidate does.

The source answers some rows in float64 too, from the same float32 numbers, widened. What its
own float32 answers lack is rounding: no candidate that computes in float32 can be asked to be
closer, and none that is sound is many times further away. Errors are taken over the largest
magnitude of the row (in float64), so that they are free of units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.domain.parity import HeldTo, NoiseParity, Tolerance
from tasks.domain.spread import typical_magnitude

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Floats = NDArray[np.float64]

ULP = 2.0**-23
"""The distance from 1 to the next float32 (IEEE 754-2019, table 3.5): 1.2e-7."""

LEAST_MAX, LEAST_RMS = 4 * ULP, ULP
"""A source that is closer to float64 than this counts as this far from it.

A constant output is exact: any rounding of a candidate would be infinitely many times that.
"""

ROUNDED_ONCE = 0.51 * ULP
"""A source that is this close to float64 computed wider than it answers and rounded once, as
scikit-learn does: that says nothing of what float32 costs, so the profile decides."""

A_ROUNDING = 2.0**-24
"""The most by which rounding to float32 changes a number, relative to it: half of ``ULP``."""

BOUND_MAX, BOUND_RMS = 10.0, 6.0
"""How many times the source's own error a candidate's largest, and its RMS, may be.

Of 24 sound models the largest of either is 3.6, of 64 elements and more. Measured by
``benchmarks/calibrate_profiles.py``; the table is in ``docs/parity/noise.md``.
"""

CEILING = 1e-3
"""Float32 that is further from float64 than this, in a row, did not round: it went another way,
over a tree's threshold or through a cast, or rounding grows without bound in it. What another
runtime answers there says nothing, so the numbers of such rows are not judged."""

FEW = 64
"""Fewer elements than this may be close by chance. The ratio of two RMS errors of three elements
each exceeds 5.4 in one comparison of a hundred (F distribution with 3 and 3 degrees of freedom),
that of 64 exceeds 1.35."""

_OUTLIER = 50.0
"""A row that strays this many times as far as the median row went another way too."""

DUST = 1e-9
"""Absolute errors below this count as none; see the floor of ``tasks.domain.profiles``."""


class Truth(NamedTuple):
    """The source's answers in float64 to some rows of a probe."""

    rows: NDArray[np.intp]
    """Which rows of the probe, ascending."""
    answers: Mapping[str, Array]
    """By output name, first axis those rows; floating outputs alone."""
    moved: Mapping[str, Array] = {}
    """Likewise to inputs that are off by a rounding, from a source that computes wider than
    it answers. Who computes in float32 answers at best as for such inputs (backward error;
    Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 1.5)."""
    least: Mapping[str, tuple[float, float]] = {}
    """Largest and RMS error by output, from the other probes: of a few numbers, such as three
    probabilities of one row, all may be rounded well by chance."""


class Held(NamedTuple):
    """What a released model was held to, with the noise that was measured then."""

    outputs: Mapping[str, HeldTo]
    """By output name; the profile's own where one is absent."""


@dataclass(frozen=True)
class OwnNoise:
    """How far the source's own float32 strays on one output of one probe."""

    rows: NDArray[np.intp]
    """The rows that are held to it: those of the truth but for ``left_out``."""
    truth: Floats
    """Shape (rows, elements)."""
    largest: float
    rms: float
    left_out: int
    """Rows in which float64 went another way than float32."""
    typical: float = 0.0
    """The least scale of a row, for rows of one number: the median of all."""

    @property
    def gates(self) -> bool:
        """Whether it says what float32 costs, and not only that the answer was rounded."""
        return self.largest > ROUNDED_ONCE

    @property
    def allowed(self) -> float:
        """How far an element may stray, over its row's largest."""
        return BOUND_MAX * max(self.largest, LEAST_MAX)

    def widened(self, tolerance: Tolerance) -> Tolerance:
        """Return ``tolerance``, or as much more as this noise asks for."""
        return widened(tolerance, self.largest)


def widened(tolerance: Tolerance, own: float) -> Tolerance:
    """Return the tolerance between two float32 answers that both keep within the noise.

    It is never narrower than ``tolerance``: rows that float64 did not answer may be noisier
    than those it did.

    Args:
        tolerance: What the profile allows.
        own: The source's own largest error, over its row's largest.
    """
    between = (BOUND_MAX + 1) * max(own, LEAST_MAX)
    return tolerance.model_copy(update={"scale": max(tolerance.scale, between)})


def lost_rows(truth: Truth | None, name: str, reference: Array) -> tuple[int, ...]:
    """Return the rows in which the source's float32 is further from its float64 than ``CEILING``.

    Where that is so of all that float64 answered, the other rows of the probe, which are of the
    same make, are not to be trusted more.

    Args:
        truth: The source's answers in float64, if it gave any.
        name: The output.
        reference: Its float32 answer, all rows.
    """
    sides = _sides(truth, name, reference)
    if truth is None or sides is None:
        return ()
    right, own = sides
    typical = typical_magnitude(right)
    lost = [
        i
        for i in range(len(right))
        if _errors(right[i], own[i], typical).max(initial=0.0) > CEILING
    ]
    if len(lost) == len(right):
        return tuple(range(len(reference)))
    return tuple(int(truth.rows[i]) for i in lost)


def _sides(
    truth: Truth | None, name: str, reference: Array
) -> tuple[Floats, NDArray[np.generic]] | None:
    """Return the answers in float64 and in float32, shape (rows, elements); None if unlike."""
    if truth is None or name not in truth.answers or reference.dtype.kind != "f":
        return None
    answer = truth.answers[name]
    if not reference.ndim or truth.rows.size == 0 or answer.dtype.kind != "f":
        return None
    if truth.rows[-1] >= len(reference) or answer.shape != reference[truth.rows].shape:
        return None
    right = answer.reshape(len(answer), -1).astype(np.float64)
    return right, reference[truth.rows].reshape(right.shape)


def own_noise(truth: Truth | None, name: str, reference: Array) -> OwnNoise | None:
    """Return how far the source's float32 strays from its float64.

    Returns:
        None where it says nothing of rounding: no float64, no numbers, another shape, or more
        than half of the rows went another way.
    """
    sides = _sides(truth, name, reference)
    if truth is None or sides is None:
        return None
    right, own = sides
    moved = np.asarray(truth.moved.get(name, own)).reshape(right.shape)
    typical = typical_magnitude(right)
    errors = [
        np.maximum(_errors(right[i], own[i], typical), _errors(right[i], moved[i], typical))
        for i in range(len(right))
    ]
    worst = np.array([each.max(initial=0.0) for each in errors])
    usual = max(float(np.median(worst)), LEAST_MAX)
    kept = (worst <= min(CEILING, _OUTLIER * usual)) & (_largest(right) > 0)
    if 2 * np.count_nonzero(kept) < len(kept) or not kept.any():
        return None
    squares = sum(float((errors[i] ** 2).sum()) for i in np.flatnonzero(kept))
    count = sum(errors[i].size for i in np.flatnonzero(kept))
    least = truth.least.get(name, (0.0, 0.0)) if count < FEW else (0.0, 0.0)
    return OwnNoise(
        rows=truth.rows[kept],
        truth=right[kept],
        largest=max(float(worst[kept].max()), least[0]),
        rms=max(float(np.sqrt(squares / max(1, count))), least[1]),
        left_out=int(np.count_nonzero(~kept)),
        typical=typical,
    )


def compare_noise(own: OwnNoise, candidate: Array, *, gated: bool) -> NoiseParity:
    """Hold a candidate's error against the source's own.

    Elements that are not finite on either side are not in the figures: they have failed, or
    been told, before.

    Args:
        own: The source's, on the same output and probe.
        candidate: Its answer to all rows, of the reference's shape.
        gated: Whether the bounds decide; figures alone, for a format that rounds on purpose.
    """
    mismatched, squares, count, largest = 0, 0.0, 0, 0.0
    for row, right in zip(own.rows, own.truth, strict=True):
        error = _errors(right, candidate[row].reshape(-1), own.typical)
        mismatched += int(np.count_nonzero(error > own.allowed))
        squares += float((error**2).sum())
        count += error.size
        largest = max(largest, float(error.max(initial=0.0)))
    rms = float(np.sqrt(squares / max(1, count)))
    return NoiseParity(
        rows=len(own.rows),
        left_out=own.left_out,
        own_max=own.largest,
        own_rms=own.rms,
        error_max=largest,
        error_rms=rms,
        ratio_max=largest / max(own.largest, LEAST_MAX),
        ratio_rms=rms / max(own.rms, LEAST_RMS),
        bound_max=BOUND_MAX if gated else None,
        bound_rms=BOUND_RMS if gated else None,
        mismatched=mismatched if gated else 0,
    )


def _largest(table: Floats) -> Floats:
    """Return the largest finite magnitude of each row."""
    magnitude = np.abs(table)
    magnitude[~np.isfinite(magnitude)] = 0
    largest: Floats = magnitude.max(axis=1, initial=0.0)
    return largest


def _errors(right: Floats, other: Array, typical: float) -> Floats:
    """Return the errors of one row over its largest; 0 where either is not finite.

    Shape (elements,), as ``right``.
    """
    answer = other.astype(np.float64)
    finite = np.isfinite(right) & np.isfinite(answer)
    scale = max(typical, float(np.abs(right[finite]).max(initial=0.0)))
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(answer - right)
    error[~finite | (error <= DUST)] = 0
    return error / scale if scale > 0 else error
