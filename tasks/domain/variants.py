"""Smaller siblings of a proven ONNX model: what a recipe may ask for, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from tasks.domain.artifact import Cost, ModelFormat, OnnxFacts, Sha256, VerifiedArtifact
from tasks.domain.parity import ParityReport
from tasks.domain.value import Value

VariantKind: TypeAlias = Literal["float16", "bfloat16", "int8"]
"""Also the name of the tolerance profile that it is held to."""

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]

# --- what a recipe asks for ---------------------------------------------------------------


class _Asked(Value):
    """What every variant has."""

    required: bool = False
    """Whether the release fails without it; else it is left out, and the reason published."""
    keep_float32: tuple[str, ...] = ()
    """Operators, such as ``Softmax``, or nodes by their names, that stay as they are."""


class Float16(_Asked):
    """Weights and arithmetic in float16; inputs and outputs stay as declared."""

    kind: Literal["float16"] = "float16"
    top1_at_least: Share = 0.99
    """Of the real rows, how many must have the source's own best class."""
    accuracy_drop_at_most: Share = 0.01
    """Where the real rows have labels."""


class Bfloat16(_Asked):
    """Weights stored in bfloat16, arithmetic in float32."""

    kind: Literal["bfloat16"] = "bfloat16"
    top1_at_least: Share = 0.98
    """Of the real rows, how many must have the source's own best class."""
    accuracy_drop_at_most: Share = 0.01
    """Where the real rows have labels."""


class Int8(_Asked):
    """Static quantisation to 8 bits, as QuantizeLinear and DequantizeLinear pairs (QDQ)."""

    kind: Literal["int8"] = "int8"
    top1_at_least: Share = 0.97
    """Of the real rows, how many must have the source's own best class."""
    accuracy_drop_at_most: Share = 0.02
    """Where the real rows have labels."""
    calibration_rows: PositiveInt = 64
    """Real rows, at most, from which the ranges of activations are measured."""
    per_channel: bool = True
    """A scale for each channel of a weight, instead of one for all of it."""
    reduce_range: bool = False
    """Weights in 7 bits, for x86 processors without VNNI, whose 16-bit sums saturate else."""


def _long_form(value: object) -> object:
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict):  # no longer JSON to a strict recipe, where a list is no tuple
        return {name: tuple(each) if isinstance(each, list) else each
                for name, each in value.items()}  # fmt: skip
    return value


_AnyVariant: TypeAlias = Annotated[Float16 | Bfloat16 | Int8, Field(discriminator="kind")]
VariantSpec: TypeAlias = Annotated[
    _AnyVariant, BeforeValidator(_long_form, json_schema_input_type=VariantKind | _AnyVariant)
]
"""Its name alone, or a mapping with its options."""


def variants_fault(variants: tuple[VariantSpec, ...], *, real_data: bool) -> str:
    """Say what is wrong with a recipe's variants, with the field's name; empty if nothing is.

    Args:
        variants: The recipe's.
        real_data: Whether it has real rows.
    """
    kinds = [each.kind for each in variants]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        return f"variants: '{twice[0]}' is there twice (expected each kind once)"
    if "int8" in kinds and not real_data:
        return (
            "variants: 'int8' is calibrated on real rows, and 'parity.real' names none; name some "
            "there, or leave 'int8' out"
        )
    return ""


# --- what became of it --------------------------------------------------------------------


class Race(Value):
    """How fast a variant answers a row beside its parent, run in turns in one process."""

    parent_ms: NonNegativeFloat
    """The median."""
    variant_ms: NonNegativeFloat
    ratio: NonNegativeFloat
    """The median over the pairs of the variant's time by its parent's."""
    wins: Share
    """The share of the pairs in which the variant was the faster."""
    pairs: PositiveInt
    on: str
    """What ran them."""


class Agreement(Value):
    """How the variant does the model's own task."""

    rows: NonNegativeInt
    """0: the model scores no classes and names no labels."""
    top1_equal: NonNegativeInt
    """Rows whose best class, or label, is the source's own, ties aside."""
    on: str
    """Which rows."""
    accuracy: Share | None = None
    """Absent where no labels are known."""
    source_accuracy: Share | None = None
    """The source's own, on the same rows."""

    def words(self) -> str:
        """Say it in one line."""
        if not self.rows:
            return "scores no classes"
        told = f"top-1 as the source on {self.top1_equal} of {self.rows} rows ({self.on})"
        if self.accuracy is None:
            return told
        return f"{told}, accuracy {self.accuracy:.4f} (source {self.source_accuracy:.4f})"


class VariantOutcome(Value):
    """What became of one variant that the recipe asked for."""

    kind: VariantKind
    required: bool = False
    parent: ModelFormat = ModelFormat.ONNX
    """What it was made from; it is compared with the source."""
    released: bool = False
    reason: str
    """Why it is released, or why it is not."""
    verified: VerifiedArtifact | None = None
    parity: ParityReport | None = None
    agreement: Agreement | None = None
    race: Race | None = None
    parent_bytes: NonNegativeInt
    notes: tuple[str, ...] = ()
    quarantine: str = ""
    """Where its report is kept, if it strayed from the source."""
    costs: dict[str, Cost] = {}
    """By stage, as far as it came."""

    @property
    def folder(self) -> str:
        """Its folder within a release."""
        return f"{self.parent.folder}-{self.kind}"

    @property
    def size_bytes(self) -> int | None:
        """The size of its files; None where none were made."""
        return self.verified.artifact.tree.size_bytes if self.verified else None


class PublishedVariant(Value):
    """What the manifest says of one variant, those that were refused too."""

    kind: VariantKind
    required: bool
    released: bool
    reason: str
    """Why it is released, or why it is not."""
    parent: ModelFormat
    folder: str
    """Where its files stand below the release; empty where it is not released."""
    sha256: Sha256 | None
    """Digest of the folder, as of a format's."""
    size_bytes: NonNegativeInt | None
    parent_bytes: NonNegativeInt
    checks: tuple[str, ...]
    onnx: OnnxFacts | None
    parity: ParityReport | None
    """Against the source framework; absent where it did not come so far."""
    agreement: Agreement | None
    race: Race | None
    notes: tuple[str, ...]
    quarantine: str = ""
    costs: dict[str, Cost] = {}


def published_variant(outcome: VariantOutcome) -> PublishedVariant:
    """Return what the manifest says of ``outcome``."""
    verified, kept = outcome.verified, outcome.released
    same: dict[str, Any] = {
        name: getattr(outcome, name)
        for name in PublishedVariant.model_fields.keys() & VariantOutcome.model_fields.keys()
    }
    return PublishedVariant(
        **same,
        folder=outcome.folder if kept else "",
        sha256=verified.artifact.tree.sha256 if verified and kept else None,
        size_bytes=outcome.size_bytes,
        checks=verified.checks if verified else (),
        onnx=verified.onnx if verified else None,
    )
