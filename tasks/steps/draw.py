"""Random rows of the kind that a recipe says a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.domain.errors import ConfigurationError
from tasks.domain.recipe import Choice, InputSpec, Range

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.artifact import TensorSpec

_FREE_PICTURE_SIZE = 64
_FREE_SIZE = 16


def draw(spec: InputSpec, rows: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw ``rows`` rows from the input's declared domain, uniformly.

    Args:
        spec: What the model takes.
        rows: Size of the first axis.
        rng: Where chance comes from.

    Returns:
        An array of the declared dtype (strings as ``<U``) and of shape ``shape_for(spec, rows)``.

    Raises:
        ConfigurationError: The domain does not fit the dtype.
    """
    shape = shape_for(spec, rows)
    match spec.domain:
        case Choice(values=values):
            return as_declared(spec, values)[rng.integers(len(values), size=shape)]
        case Range(low=low, high=high):
            return _draw_range(spec, low, high, shape, rng)


def shape_for(spec: InputSpec, rows: int) -> tuple[int, ...]:
    """Return the declared shape with ``rows`` rows; other free axes get a fixed, small size."""
    free = _FREE_PICTURE_SIZE if spec.layout else _FREE_SIZE
    return (rows, *(free if isinstance(dim, str) else dim for dim in spec.shape[1:]))


def as_declared(spec: TensorSpec, values: Any) -> NDArray[Any]:  # noqa: ANN401 - whatever YAML holds
    """Return ``values`` as an array of the declared dtype.

    Raises:
        ConfigurationError: They are of another kind, out of range, or ragged.
    """
    try:
        plain = np.asarray(values)
        if (spec.dtype == "string") != (plain.dtype.kind == "U"):
            message = "text where numbers belong, or numbers where text belongs"
            raise ValueError(message)  # noqa: TRY301 - one wording for all that can be wrong
        if spec.dtype == "string":
            return plain
        with np.errstate(over="raise", invalid="raise"):
            typed = plain.astype(spec.dtype)
        if np.dtype(spec.dtype).kind != "f" and not np.array_equal(typed, plain):
            message = "a value that the dtype cannot hold"
            raise ValueError(message)  # noqa: TRY301
    except (ValueError, TypeError, OverflowError, FloatingPointError) as error:
        shown = f"{values!s:.80}"
        raise ConfigurationError(
            f"input '{spec.name}': values do not fit (expected {spec.dtype}, got {shown}): "
            f"{error}. Change the values or the dtype in the recipe."
        ) from error
    return typed


def bounds(spec: InputSpec, low: float, high: float) -> tuple[int | float, int | float]:
    """Return the least and the greatest value of a range that the input's dtype can hold.

    Raises:
        ConfigurationError: There is none.
    """
    kind = np.dtype(spec.dtype).kind if spec.dtype != "string" else "U"
    if kind == "U":
        raise ConfigurationError(
            f"input '{spec.name}': a range holds numbers (expected a choice for dtype string). "
            "Use 'domain: {kind: choice, values: […]}'."
        )
    if kind == "f":
        limit = float(np.finfo(spec.dtype).max)
        return max(low, -limit), min(high, limit)
    least, greatest = int(np.ceil(low)), int(np.floor(high))
    low_end, high_end = (0, 1) if kind == "b" else _ends(spec)
    if high == float(high_end):
        greatest = high_end  # a float cannot say the largest int64 and uint64: it rounds up
    if not low_end <= least <= greatest <= high_end:
        raise ConfigurationError(
            f"input '{spec.name}': domain {low:g} to {high:g} does not fit {spec.dtype} "
            f"(expected whole numbers within {low_end} to {high_end}). Change it in the recipe."
        )
    return least, greatest


def _ends(spec: InputSpec) -> tuple[int, int]:
    info = np.iinfo(spec.dtype)
    return int(info.min), int(info.max)


def _draw_range(
    spec: InputSpec, low: float, high: float, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[Any]:
    least, greatest = bounds(spec, low, high)
    if np.dtype(spec.dtype).kind == "f":
        # halved, since the distance of the bounds may overflow
        part = rng.random(shape)
        return (least * (1 - part) + greatest * part).astype(spec.dtype)
    whole = np.uint64 if least >= 0 else np.int64
    drawn = rng.integers(int(least), int(greatest), size=shape, endpoint=True, dtype=whole)
    return drawn.astype(spec.dtype)
