"""Rows at the edges of what the inputs may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tasks.domain.domains import Image, Mask, OneHot, Tokens
from tasks.domain.recipe import Recipe
from tasks.domain.signature import Choice, InputSpec, Range
from tasks.steps.axes import usual_sizes
from tasks.steps.draw import as_declared, bounds, mask_of, shape_for, tokens_of
from tasks.steps.pictures import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Inputs = dict[str, NDArray[Any]]

End: TypeAlias = Any
"""A number, a word, or an array of numbers that broadcasts to a row."""

VERY_LARGE = 1e4
"""A large number that no single layer makes infinite: float16 ends at 65,504, and the square of
the largest float32 overflows in the source itself, of which nothing can be learnt."""

_MIXED_ROWS = 2

EDGES = {
    "zeros": "every number 0, or the domain's nearest to it",
    "ones": "every number 1, or the domain's nearest to it",
    "lowest": "every number the lowest of its domain",
    "highest": "every number the highest of its domain",
    "denormal": "every number the smallest above 0 that its dtype can hold",
    "very-large": f"every number {VERY_LARGE:g} or its negative, as its domain allows",
    "mixed-extremes": "every number the lowest or the highest of its domain, by chance",
}


def edge_probes(
    recipe: Recipe, random: Inputs, rng: np.random.Generator
) -> Iterator[tuple[str, str, Inputs]]:
    """Yield name, description and rows of each edge that some input has.

    An input that has no such edge holds its first random rows.
    """
    sizes = usual_sizes(recipe)
    edges = {
        spec.name: _edges(recipe, spec, shape_for(spec, 1, sizes), rng)
        for spec in recipe.signature.inputs
    }
    for name, about in EDGES.items():
        if any(name in each for each in edges.values()):
            rows = max(len(each[name]) for each in edges.values() if name in each)
            row = {
                of: np.resize(each.get(name, random[of]), (rows, *random[of].shape[1:]))
                for of, each in edges.items()
            }
            for spec in recipe.signature.inputs:
                if isinstance(spec.domain, Mask):
                    row[spec.name] = mask_of(recipe, spec, row)
            yield name, about, row


def _edges(
    recipe: Recipe, spec: InputSpec, shape: tuple[int, ...], rng: np.random.Generator
) -> Inputs:
    if isinstance(spec.domain, Mask):
        return {}
    low, high = _ends(recipe, spec)
    if isinstance(spec.domain, OneHot):
        found = {"lowest": low, "highest": high}
    else:
        found = _inner(spec, low, high) | {"lowest": low, "highest": high}
    edges = {name: _full(spec, shape, value) for name, value in found.items()}
    several = (_MIXED_ROWS, *shape[1:])
    if isinstance(spec.domain, OneHot):
        chosen = rng.integers(2, size=(*several[:-1], 1)) == 1
    else:
        chosen = rng.integers(2, size=several) == 1
    edges["mixed-extremes"] = np.where(chosen, edges["highest"], edges["lowest"])
    return edges | _large(spec, several, low, high, rng)


def _full(spec: InputSpec, shape: tuple[int, ...], value: End) -> NDArray[Any]:
    typed = as_declared(spec, np.asarray(value).tolist())
    return np.array(np.broadcast_to(typed, shape))


def _inner(spec: InputSpec, low: End, high: End) -> dict[str, Any]:
    """Return the domain's values nearest to 0, to 1 and to the smallest number above 0."""
    if isinstance(spec.domain, Choice):
        numbers = [each for each in spec.domain.values if not isinstance(each, str)]
        if not numbers:
            return {}
        return {
            "zeros": min(numbers, key=abs),
            "ones": min(numbers, key=lambda each: abs(each - 1)),
        }
    # minimum and maximum, not clip: whole numbers beyond int64 stay what they are
    inner = {
        name: np.minimum(np.maximum(np.asarray(value, np.asarray(low).dtype), low), high)
        for name, value in (("zeros", 0), ("ones", 1))
    }
    if np.dtype(spec.dtype).kind == "f":
        tiny = np.finfo(spec.dtype).smallest_subnormal
        if np.all(low <= tiny) and np.all(tiny <= high):
            inner["denormal"] = tiny
        elif np.all(low <= -tiny) and np.all(-tiny <= high):
            inner["denormal"] = -tiny
    return inner


def _large(
    spec: InputSpec,
    shape: tuple[int, ...],
    low: End,
    high: End,
    rng: np.random.Generator,
) -> Inputs:
    """Return large rows where the domain reaches further still; else its ends are the largest."""
    if not isinstance(spec.domain, Range) or np.dtype(spec.dtype).kind != "f":
        return {}
    signs = [sign for sign, beyond in ((-1, low < -VERY_LARGE), (1, high > VERY_LARGE)) if beyond]
    if not signs:
        return {}
    return {"very-large": (rng.choice(signs, size=shape) * VERY_LARGE).astype(spec.dtype)}


def _ends(recipe: Recipe, spec: InputSpec) -> tuple[End, End]:
    """Return the lowest and the highest that the input may hold."""
    match spec.domain:
        case Choice():
            return _ends_of_choice(spec, spec.domain)
        case Range(low=low, high=high):
            return bounds(spec, low, high)
        case Image():
            pixels = np.reshape([[0] * 3, [255] * 3], (2, 1, 1, 3))
            black, white = normalised(spec, pixels, recipe.preprocessing)
            return np.minimum(black, white), np.maximum(black, white)
        case Tokens():
            return tokens_of(spec.domain)
        case OneHot():
            classes = np.eye(int(spec.shape[-1]))
            return classes[0], classes[-1]
        case Mask():
            return 0, 1


def _ends_of_choice(spec: InputSpec, domain: Choice) -> tuple[End, End]:
    if spec.dtype == "string":
        words = [str(each) for each in domain.values]
        return min(words), max(words)
    numbers = [each for each in domain.values if not isinstance(each, str)]
    if len(numbers) < len(domain.values):
        as_declared(spec, domain.values)  # says what is wrong
    return min(numbers), max(numbers)
