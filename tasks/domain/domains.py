"""What an input may hold, beyond a range and a choice; and how long its free axes may be."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tasks.domain.value import Value


class Image(Value):
    """Pixels from black to white, sent through the recipe's own ``preprocessing``.

    A random picture is one of whole pixel values, normalised as real ones are; lowest and
    highest are what black and white become, channel by channel.
    """

    kind: Literal["image"] = "image"


class Tokens(Value):
    """Numbers of tokens, from 0 to below ``vocabulary``.

    With ``padding``, each row is of a length of its own, and that token fills the rest.
    """

    kind: Literal["tokens"] = "tokens"
    vocabulary: Annotated[int, Field(ge=2)]
    padding: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _padding_is_a_token(self) -> Self:
        if self.padding is not None and self.padding >= self.vocabulary:
            message = f"padding ({self.padding}) must be below vocabulary ({self.vocabulary})"
            raise ValueError(message)
        return self


class Mask(Value):
    """One where another input has a token, zero where that has padding."""

    kind: Literal["mask"] = "mask"
    of: str
    """Name of the input whose domain is ``tokens``."""


class OneHot(Value):
    """Zeros, but for exactly one 1 along the last axis."""

    kind: Literal["one-hot"] = "one-hot"


class AxisBounds(Value):
    """How long a free axis may be; parity is proven at both ends, and at an odd length."""

    min: PositiveInt
    max: PositiveInt
    multiple_of: PositiveInt = 1
    """Such as 32, for a network that halves its picture five times."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if self.min > self.max:
            message = f"min ({self.min}) must not be above max ({self.max})"
            raise ValueError(message)
        if self.min % self.multiple_of or self.max % self.multiple_of:
            message = f"min and max must be multiples of {self.multiple_of}"
            raise ValueError(message)
        return self

    @property
    def odd(self) -> int:
        """The odd length (an odd multiple of ``multiple_of``) nearest to the middle."""
        least, most = self.min // self.multiple_of, self.max // self.multiple_of
        middle = (least + most) // 2
        odd = middle if middle % 2 else middle + 1 if middle < most else max(least, middle - 1)
        return odd * self.multiple_of

    @property
    def sizes(self) -> tuple[int, ...]:
        """The lengths at which parity is proven: the smallest, an odd one, and the largest."""
        return tuple(sorted({self.min, self.odd, self.max}))


LEAST_LARGEST_BATCH = 8
"""``verify`` runs batches of 1, 2, 3 and 8, whatever the recipe says."""

BATCH = AxisBounds(min=1, max=LEAST_LARGEST_BATCH)
"""Where the recipe says nothing of the batch: 1, an odd one, and 8."""

BATCH_SIZES = (1, 3)
"""Batches that are proven beside the largest; 3 since exporters take 1 and 2 for constants."""

_IMAGE_RANK = 4


def domain_fault(domain: object, dtype: str, shape: tuple[int | str, ...]) -> str:
    """Say what keeps an input of this dtype and shape from holding this domain, if anything."""
    whole, text = dtype.startswith(("int", "uint")), dtype == "string"
    match domain:
        case Image() if text or len(shape) != _IMAGE_RANK:
            return "'image' needs four axes and a dtype of numbers"
        case Tokens() if not whole:
            return f"'tokens' need an integer dtype (got {dtype})"
        case Mask() if text:
            return "'mask' needs a dtype of numbers"
        case OneHot() if text or isinstance(shape[-1], str) or shape[-1] < 2 or len(shape) < 2:  # noqa: PLR2004 - one class is no choice
            return "'one-hot' needs a dtype of numbers and a last axis of known size, 2 or more"
    return ""
