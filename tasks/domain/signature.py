"""What a released model accepts and returns, and what its inputs may hold."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from tasks.domain.artifact import ModelSignature, TensorSpec
from tasks.domain.domains import (
    LEAST_LARGEST_BATCH,
    AxisBounds,
    Image,
    Mask,
    OneHot,
    Tokens,
    domain_fault,
)
from tasks.domain.value import Value


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
