"""Random rows of the kind that a recipe says a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.domain.domains import Image, Mask, OneHot, Tokens
from tasks.domain.errors import ConfigurationError
from tasks.domain.signature import Choice, ImagePreprocessing, InputSpec, Range
from tasks.steps.axes import free_size, usual_sizes
from tasks.steps.pictures import normalised

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tasks.domain.artifact import TensorSpec
    from tasks.domain.recipe import Recipe
    from tasks.steps.axes import Sizes


def draw_inputs(
    recipe: Recipe, rows: int, rng: np.random.Generator, sizes: Sizes | None = None
) -> dict[str, NDArray[Any]]:
    """Draw ``rows`` rows for every input, each from its declared domain; masks fit their tokens.

    Args:
        recipe: What the model takes.
        rows: Size of the first axis.
        rng: Where chance comes from.
        sizes: Of the other free axes, by name; absent: the usual ones.

    Raises:
        ConfigurationError: A domain does not fit its dtype.
    """
    known = usual_sizes(recipe) | dict(sizes or {})
    specs = recipe.signature.inputs
    steps = recipe.preprocessing
    drawn = {
        spec.name: draw(spec, rows, rng, known, steps)
        for spec in specs
        if not isinstance(spec.domain, Mask)
    }
    return {spec.name: drawn.get(spec.name, mask_of(recipe, spec, drawn)) for spec in specs}


def mask_of(recipe: Recipe, spec: InputSpec, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return ones where the input that ``spec`` masks has a token; else an empty array."""
    if not isinstance(spec.domain, Mask):
        return np.empty(0)
    of = spec.domain.of
    domain = next(each.domain for each in recipe.signature.inputs if each.name == of)
    padding = domain.padding if isinstance(domain, Tokens) else None
    tokens = inputs[of]
    return (np.ones_like(tokens) if padding is None else tokens != padding).astype(spec.dtype)


def draw(
    spec: InputSpec,
    rows: int,
    rng: np.random.Generator,
    sizes: Sizes | None = None,
    steps: ImagePreprocessing | None = None,
) -> NDArray[Any]:
    """Draw ``rows`` rows from the input's declared domain, uniformly.

    Args:
        spec: What the model takes; no mask, which is not drawn for itself.
        rows: Size of the first axis.
        rng: Where chance comes from.
        sizes: Of the other free axes, by name.
        steps: The recipe's preprocessing, for pictures.

    Returns:
        An array of the declared dtype (strings as ``<U``) and of shape ``shape_for(spec, rows)``.

    Raises:
        ConfigurationError: The domain does not fit the dtype.
    """
    shape = shape_for(spec, rows, sizes)
    match spec.domain:
        case Choice(values=values):
            return as_declared(spec, values)[rng.integers(len(values), size=shape)]
        case Range(low=low, high=high):
            return _draw_range(spec, low, high, shape, rng)
        case Image():
            return normalised(spec, rng.integers(256, size=_channels_last(spec, shape)), steps)
        case Tokens():
            return _draw_tokens(spec, spec.domain, shape, rng)
        case OneHot():
            hot = rng.integers(shape[-1], size=shape[:-1])
            return np.eye(shape[-1], dtype=spec.dtype)[hot]
        case Mask():
            message = f"input '{spec.name}': a mask is drawn with its tokens, by draw_inputs"
            raise ConfigurationError(message)


def shape_for(spec: InputSpec, rows: int, sizes: Sizes | None = None) -> tuple[int, ...]:
    """Return the declared shape with ``rows`` rows; other free axes get their size by name."""
    known = sizes or {}
    rest = (
        known.get(dim, free_size(spec, axis)) if isinstance(dim, str) else dim
        for axis, dim in enumerate(spec.shape[1:], start=1)
    )
    return (rows, *rest)


def tokens_of(domain: Tokens) -> tuple[int, int]:
    """Return the lowest and the highest token that is no padding."""
    least = 1 if domain.padding == 0 else 0
    last = domain.vocabulary - 1
    return least, last - 1 if domain.padding == last else last


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


def _channels_last(spec: InputSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    if spec.layout == "NCHW":
        return (shape[0], shape[2], shape[3], shape[1])
    return shape


def _draw_tokens(
    spec: InputSpec, domain: Tokens, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[Any]:
    """Draw tokens; where there is padding, each row but the first is padded behind its end."""
    least, last = tokens_of(domain)
    drawn = rng.integers(least, last, size=shape, endpoint=True)
    if domain.padding is None:
        return drawn.astype(spec.dtype)
    drawn = np.where(drawn == domain.padding, least, drawn)
    if len(shape) > 1:
        lengths = rng.integers(1, shape[-1], size=(*shape[:-1], 1), endpoint=True)
        lengths[0] = shape[-1]
        drawn = np.where(np.arange(shape[-1]) < lengths, drawn, domain.padding)
    return drawn.astype(spec.dtype)
