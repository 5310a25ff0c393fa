"""What the stages hand to one another: references to files, never the files themselves."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable

Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest, 64 lower-case hexadecimal digits."""

Slug: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=63)]
"""A name that is also a folder in the bucket: lower case, digits, single dashes."""

Dim: TypeAlias = PositiveInt | Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""A fixed size, or the name of a dynamic axis such as ``"batch"``."""

DType: TypeAlias = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool", "string",
]  # fmt: skip
"""A numpy dtype name; ``string`` stands for numpy's object arrays of ``str``."""


class ModelFormat(StrEnum):
    """The formats a model can take."""

    SKLEARN = "sklearn"
    TORCH = "torch"
    KERAS = "keras"
    SAVED_MODEL = "saved_model"
    ONNX = "onnx"

    @property
    def folder(self) -> str:
        """The folder of this format within a release."""
        return "tf" if self is ModelFormat.SAVED_MODEL else str(self)

    @property
    def label(self) -> str:
        """The format's own name, as its users write it."""
        return _LABELS[self]


_LABELS = {
    ModelFormat.SKLEARN: "scikit-learn",
    ModelFormat.TORCH: "PyTorch",
    ModelFormat.KERAS: "Keras",
    ModelFormat.SAVED_MODEL: "TensorFlow SavedModel",
    ModelFormat.ONNX: "ONNX",
}


class TensorSpec(Value):
    """One named input or output of a model."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """The axes whose size is free, by position."""
        return {i: dim for i, dim in enumerate(self.shape) if isinstance(dim, str)}

    def __str__(self) -> str:
        """Write the tensor as ``name float32[batch, 3, 224, 224]``."""
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


class ModelSignature(Value):
    """The inputs a model accepts and the outputs it returns, in calling order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __str__(self) -> str:
        """Write the signature as ``inputs -> outputs``."""
        return " -> ".join(", ".join(map(str, side)) for side in (self.inputs, self.outputs))


class StoredFile(Value):
    """A file in the object store, pinned by its content."""

    key: str
    sha256: Sha256
    size_bytes: NonNegativeInt


class StoredTree(Value):
    """Files that belong together, such as a model beside its external data, or a SavedModel."""

    root: str
    """The key prefix that all of them share, without a slash at its end."""
    files: tuple[StoredFile, ...]

    def path_of(self, file: StoredFile) -> str:
        """Return where ``file`` stands below the root, such as ``variables/variables.index``."""
        return file.key.removeprefix(f"{self.root}/")

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """One digest for the tree: SHA-256 over ``<digest>  <path>`` lines in the paths' order."""
        return sha256_of_tree((self.path_of(file), file.sha256) for file in self.files)


def sha256_of_tree(files: Iterable[tuple[str, str]]) -> str:
    """Return one digest for a folder: SHA-256 over ``<digest>  <path>`` lines by path.

    Args:
        files: Path below the folder, with ``/``, and SHA-256 of each file; in any order.
    """
    text = "".join(f"{digest}  {path}\n" for path, digest in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


class ModelArtifact(Value):
    """A model in one format: the value that goes from stage to stage."""

    model: Slug
    format: ModelFormat
    signature: ModelSignature
    """What the recipe declares; ``verify`` holds the files to it."""
    tree: StoredTree
    variant: str = ""
    """``float16`` and the like; empty: the model itself."""

    @property
    def folder(self) -> str:
        """Its folder within a release."""
        return f"{self.format.folder}-{self.variant}" if self.variant else self.format.folder


class Cost(Value):
    """What one piece of work took."""

    seconds: NonNegativeFloat = 0.0
    peak_mb: NonNegativeFloat = 0.0
    """The largest resident size of the process that did it, in MiB."""

    def __add__(self, other: Cost) -> Cost:
        """Return what this and then the other took."""
        return Cost(
            seconds=round(self.seconds + other.seconds, 3),
            peak_mb=max(self.peak_mb, other.peak_mb),
        )


class Attempt(Value):
    """One try of one converter."""

    converter: str
    succeeded: bool
    reason: str
    """Why it won, or why it did not."""
    diagnosis: str = ""
    """Where its answers went wrong, in words, where they did."""
    cost: Cost = Cost()


class Canonical(Value):
    """Digests of an ONNX file that no name, order or note of its exporter changes.

    ``tasks.steps.canonical`` says what counts. Beside the whole, one digest for each part, so
    that two files which differ can be told apart.
    """

    sha256: Sha256
    """Of everything; the parts alone do not say which weight stands where."""
    signature: Sha256
    """Names, dtypes and shapes of inputs and outputs."""
    opsets: Sha256
    graph: Sha256
    """Operators, attributes and how they are joined; of weights the shapes alone."""
    weights: Sha256
    """Every weight's dtype, shape and content, in no order."""


class OnnxFacts(Value):
    """What an ONNX file is, read from the file itself."""

    ir_version: PositiveInt
    opsets: dict[str, PositiveInt]
    """The version of each operator set, by domain (``ai.onnx`` for the default one)."""
    operators: dict[str, PositiveInt]
    """How often each operator occurs, by name."""
    parameters: NonNegativeInt
    """The number of weights."""
    external_data: bool
    canonical: Canonical | None = None
    """Absent in manifests of versions before there was one."""


class VerifiedArtifact(Value):
    """An artifact whose files loaded and whose signature is the declared one.

    Only ``tasks.verify`` builds one, so a stage that asks for this type cannot
    be given an unchecked file.
    """

    artifact: ModelArtifact
    checks: tuple[str, ...]
    """What was checked, in words."""
    onnx: OnnxFacts | None = None
