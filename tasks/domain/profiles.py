"""How far each kind of model may stray: every number with the measurement behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tasks.domain.parity import ProfileName, Tolerance

if TYPE_CHECKING:
    from tasks.domain.signature import OutputSpec


class Profile(NamedTuple):
    """The tolerances of one kind of model."""

    base: Tolerance
    probabilities: Tolerance
    """For scores that went through a softmax.

    Softmax turns an absolute error d of the logits into a relative error of about d of the
    probabilities, so its outputs stray further, in relation to their size, than the logits do.
    """
    constant_factor: float = 1
    """How many times further the answer to a constant input may stray."""
    metric_budget: float = 0
    """How much less the task's metric may be than the source's own, on the same rows."""


# Outputs of magnitude below this are rounding dust of float32 sums. It is far below the
# probabilities of a thousand equal classes (1e-3), so that it hides nothing there.
_FLOOR = 1e-9

CONSTANT_PROBES = frozenset({"zeros", "ones", "lowest", "highest"})
"""Probes that hold one number everywhere.

Each position of a picture then makes the same rounding error, so that the sums over positions
do not average them out, and the answers are small beside what they are made of. MobileNetV2
with its real weights on zeros: PyTorch's own float32 is 1.2e-5 of the row's largest away from
its float64 (1.0e-6 on random inputs), and ONNX Runtime is 2e-5 away from PyTorch's float32.
"""

PROFILES: dict[ProfileName, Profile] = {
    # Largest |c - r| over the row's largest |r|, measured on logits (torch 2.14, ONNX Runtime
    # 1.32, TensorFlow 2.21, CPU): ResNet-50 seeded, torch -> ONNX 5e-5 of 111 = 4.5e-7, and
    # onnx-tf 6e-4 of 1048 = 5.7e-7; MobileNetV2 real weights 8.7e-7; onnx2tf 8e-7. The sum of
    # rtol and scale, which is what the largest element may use, is 17 times the largest of them.
    # Probabilities: ResNet-50 with logits scaled to 1, 5, 20, 60, 111 and 500 strays most at 20,
    # by 3.1e-6 of a largest probability of 0.5; a peak at 1 strays less. 19 times that.
    "float32-conv": Profile(
        base=Tolerance(rtol=5e-6, scale=1e-5, floor=_FLOOR),
        probabilities=Tolerance(rtol=2e-5, scale=4e-5, floor=_FLOOR),
        constant_factor=10,
    ),
    # BERT-tiny, ViT-B/16, LSTMs, onnx-tf against ONNX Runtime: at most 3e-6 of the row's
    # largest, which is 3.5 times what convolutions do; 13 times that, and as above for softmax.
    "float32-transformer": Profile(
        base=Tolerance(rtol=1e-5, scale=3e-5, floor=_FLOOR),
        probabilities=Tolerance(rtol=6e-5, scale=1.2e-4, floor=_FLOOR),
    ),
    # scikit-learn 1.9 adds in float64, ONNX Runtime in float32. Measured on iris, wine and
    # digits, of the row's largest: forest of 100 trees 4.2e-7, of 500 trees 1.34e-6, boosting
    # 6.1e-7, logistic regression 9.5e-7. The sum of rtol and scale is 11 times the largest.
    "trees": Profile(
        base=Tolerance(rtol=5e-6, scale=1e-5, floor=_FLOOR),
        probabilities=Tolerance(rtol=5e-6, scale=1e-5, floor=_FLOOR),
    ),
    # The unit roundoff of float16 is 2^-11 = 4.9e-4 and of bfloat16 2^-8 = 3.9e-3 (IEEE 754-2019,
    # table 3.5; bfloat16 keeps 8 bits of float32's 24). Rounding weights and activations at each
    # layer adds up to some ten of them of the row's largest; softmax turns that of a logit of
    # magnitude 10 into ten times that of a probability. On constant inputs MobileNetV2 with its
    # real weights uses 3.7 times the base in float16 and 4.0 times in bfloat16 (on real pictures
    # 0.31 and 0.33 of it), for the reason above.
    "float16": Profile(
        base=Tolerance(rtol=5e-3, scale=1e-2, floor=_FLOOR),
        probabilities=Tolerance(rtol=2e-2, scale=4e-2, floor=_FLOOR),
        constant_factor=10,
    ),
    "bfloat16": Profile(
        base=Tolerance(rtol=2e-2, scale=6e-2, floor=_FLOOR),
        probabilities=Tolerance(rtol=5e-2, scale=1.2e-1, floor=_FLOOR),
        constant_factor=10,
    ),
    # Eight bits over the calibrated range of each tensor: a step is 1/255 = 3.9e-3 of it, and
    # values beyond the range saturate. What it does to the answers is the task metric's to say.
    "int8": Profile(
        base=Tolerance(rtol=5e-2, scale=2e-1, floor=_FLOOR),
        probabilities=Tolerance(rtol=1e-1, scale=2.5e-1, floor=_FLOOR),
        constant_factor=2,
    ),
    # For models that move, count or round, and never add floats.
    "exact": Profile(
        base=Tolerance(rtol=0, scale=0, floor=0),
        probabilities=Tolerance(rtol=0, scale=0, floor=0),
    ),
}


NOISE_DECIDES: frozenset[ProfileName] = frozenset({"float32-conv", "float32-transformer", "trees"})
"""Profiles of formats that compute in float32, so that float32's own noise is what to expect."""


def tolerance_for(profile: ProfileName, output: OutputSpec, probe: str = "") -> Tolerance:
    """Return what ``output`` is held to under ``profile``, in the answer to ``probe``."""
    chosen = PROFILES[profile]
    tolerance = chosen.probabilities if output.role == "probabilities" else chosen.base
    if probe not in CONSTANT_PROBES:
        return tolerance
    factor = chosen.constant_factor
    wider = {"rtol": factor * tolerance.rtol, "scale": factor * tolerance.scale}
    return tolerance.model_copy(update=wider)
