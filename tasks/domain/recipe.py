"""A recipe: everything there is to know about how one model becomes a release."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from tasks.domain.artifact import ModelFormat, Slug
from tasks.domain.compatibility import Runtime, highest_opset, opset_fault
from tasks.domain.domains import (
    Image,
)
from tasks.domain.parity import ProfileName
from tasks.domain.passes import SimplifierPass
from tasks.domain.signature import (
    ImagePreprocessing,
    RecipeSignature,
)
from tasks.domain.sources import (
    SOURCE_FORMATS,
    NamedModel,
    Sha256Download,
    SklearnPickle,
    Source,
)
from tasks.domain.value import Value
from tasks.domain.variants import VariantSpec, variants_fault
from tasks.domain.waivers import Waiver


class Pictures(Value):
    """Real pictures, sent through the recipe's own preprocessing."""

    kind: Literal["pictures"] = "pictures"
    files: Annotated[tuple[Sha256Download, ...], Field(min_length=1)]


class HeldOutRows(Value):
    """Rows of the data set that training did not see (for sources that train)."""

    kind: Literal["held-out"] = "held-out"
    at_most: PositiveInt = 64


class Rows(Value):
    """Rows written in the recipe, one list of values for each input."""

    kind: Literal["rows"] = "rows"
    values: dict[str, tuple[Any, ...]]


RealData: TypeAlias = Annotated[Pictures | HeldOutRows | Rows, Field(discriminator="kind")]


class ParityPolicy(Value):
    """What must agree before anything is published, and on which inputs."""

    profile: ProfileName = "float32-conv"
    seed: NonNegativeInt = 0
    random_rows: PositiveInt = 8
    """Rows drawn from each input's domain."""
    real: RealData | None = None
    search: Annotated[int, Field(ge=0, le=1024)] | None = None
    """Structured rows that a property-based search adds; 0 for none; absent: 16, or 2 where a row
    has more than 256 kB."""


class Limits(Value):
    """What each child process of this model may take."""

    memory_mb: PositiveInt = 12_000
    timeout_seconds: PositiveInt = 900


_OPSETS = {"minimum": 9, "maximum": 26}
_HIGHEST_OPSET = {
    ModelFormat.SKLEARN: 22,
    ModelFormat.TORCH: 23,
    ModelFormat.KERAS: 18,
    ModelFormat.SAVED_MODEL: 18,
}
"""What a converter from each format writes; torch-dynamo goes on to 26, TorchScript does not."""
_TENSORFLOW_READS = 22
"""The highest opset for which the converters to TensorFlow have been proven."""


def _chosen_opset(value: object, info: ValidationInfo) -> object:
    """Turn ``auto`` into the highest opset that all of ``serve``, and the converters, know."""
    if value != "auto" or not {"source", "targets", "serve"} <= info.data.keys():
        return 17 if value == "auto" else value  # what is wrong with the others is said of them
    if not info.data["serve"]:
        message = "'auto' needs 'serve', the runtimes that must read it; or name an opset"
        raise ValueError(message)
    most = _HIGHEST_OPSET[SOURCE_FORMATS[info.data["source"].kind]]
    if ModelFormat.SAVED_MODEL in info.data["targets"]:
        most = min(most, _TENSORFLOW_READS)
    return min(most, highest_opset(info.data["serve"]))


Opset: TypeAlias = Annotated[
    int,
    Field(ge=_OPSETS["minimum"], le=_OPSETS["maximum"]),
    BeforeValidator(_chosen_opset),
    WithJsonSchema({"anyOf": [{"type": "integer", **_OPSETS}, {"const": "auto"}]}),
]


class Recipe(Value):
    """One model of the catalogue: ``models/<name>.yaml``."""

    name: Slug
    description: str
    tags: tuple[Slug, ...] = ()
    licence: str
    """Under what terms the weights may be passed on."""
    source: Source
    signature: RecipeSignature
    preprocessing: ImagePreprocessing | None = None
    labels: tuple[str, ...] | Literal["imagenet-1k"] | None = None
    targets: Annotated[
        tuple[Literal[ModelFormat.ONNX, ModelFormat.SAVED_MODEL], ...], Field(min_length=1)
    ] = (ModelFormat.ONNX,)
    """``onnx``, and ``saved_model`` which is made from the ONNX file."""
    serve: tuple[Runtime, ...] = ()
    """The runtimes that must be able to serve the ONNX file."""
    opset: Opset = 17
    """A number, or ``auto``: the highest that all of ``serve`` can read."""
    converters: dict[ModelFormat, tuple[str, ...]] = {}
    """Converters to try for a target, in order; absent: all that fit, in the table's order."""
    simplify: tuple[SimplifierPass, ...] = ()
    """Simplifying passes over the ONNX file, in order; one that changes answers is skipped."""
    parity: ParityPolicy = ParityPolicy()
    waivers: tuple[Waiver, ...] = ()
    """Comparisons that may fail until a day, with who answers for it; an expired one fails the
    run."""
    variants: tuple[VariantSpec, ...] = ()
    """Smaller siblings of the ONNX model: ``float16``, ``bfloat16``, ``int8``, or with options."""
    device: Literal["cpu", "cuda", "both"] = "cpu"
    limits: Limits = Limits()

    @property
    def source_format(self) -> ModelFormat:
        """The format that the source model has."""
        return SOURCE_FORMATS[self.source.kind]

    @property
    def seeded(self) -> bool:
        """Whether the weights are random: the release proves a graph and is of no other use."""
        return isinstance(self.source, NamedModel) and self.source.seeded

    @model_validator(mode="after")
    def _tensorflow_comes_after_onnx(self) -> Self:
        if ModelFormat.ONNX not in self.targets:
            message = "targets: 'saved_model' is made from 'onnx', so list 'onnx' too"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _the_runtimes_read_the_opset(self) -> Self:
        if fault := opset_fault(self.serve, self.opset):
            message = f"opset: {fault}"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _real_data_fit_the_source(self) -> Self:
        real = self.parity.real
        if isinstance(real, HeldOutRows) and not self.source.kind.startswith("train-"):
            message = "parity.real: 'held-out' rows need a source that trains; use 'rows'"
            raise ValueError(message)
        if isinstance(real, Pictures) and self.preprocessing is None:
            message = "parity.real: 'pictures' need 'preprocessing'"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _waivers_name_outputs(self) -> Self:
        known = [each.name for each in self.signature.outputs]
        for i, each in enumerate(self.waivers):
            if each.output is not None and each.output not in known:
                message = (
                    f"waivers[{i}].output: names no output (expected one of {', '.join(known)}, "
                    f"got '{each.output}')"
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _images_are_preprocessed(self) -> Self:
        for each in self.signature.inputs:
            if isinstance(each.domain, Image) and not (each.layout and self.preprocessing):
                message = (
                    f"signature.inputs.{each.name}.domain: 'image' needs a 'layout' and the "
                    "recipe's 'preprocessing'"
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _variants_can_be_made(self) -> Self:
        if fault := variants_fault(self.variants, real_data=self.parity.real is not None):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _pickles_are_trusted(self) -> Self:
        if isinstance(self.source, SklearnPickle) and not self.source.trusted:
            message = (
                "source.trusted: a pickle runs code when loaded; say 'trusted: true' or use skops"
            )
            if not all(".skops" in each.uri for each in self.source.downloads):
                raise ValueError(message)
        return self
