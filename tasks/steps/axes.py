"""How long the free axes of random rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.domains import BATCH, BATCH_SIZES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.domain.recipe import Recipe
    from tasks.domain.signature import InputSpec

    Sizes = Mapping[str, int]

WHOLE = "size-"
"""How the names of probes begin that are about an axis: they go to a model in one batch."""

_FREE_SIDES = (64, 48)
"""Height and width of a picture, never square: a square one hides that they were exchanged."""
_FREE_SIZE = 16
_ROWS = 2


def usual_sizes(recipe: Recipe) -> dict[str, int]:
    """Return a size for each free axis but the batch: an odd one where bounds are declared."""
    declared, sizes = recipe.signature.axes, dict[str, int]()
    for spec in recipe.signature.inputs:
        for axis, name in spec.dynamic_axes.items():
            if axis and name not in sizes:
                bounds = declared.get(name)
                sizes[name] = bounds.odd if bounds else free_size(spec, axis)
        _unsquare(recipe, spec, sizes)
    return sizes


def free_size(spec: InputSpec, axis: int) -> int:
    """Return the size of a free axis of which the recipe says nothing."""
    sides = sides_of(spec)
    return _FREE_SIDES[sides.index(axis)] if axis in sides else _FREE_SIZE


def sides_of(spec: InputSpec) -> tuple[int, ...]:
    """Return the axes of height and width, or none."""
    return {"NCHW": (2, 3), "NHWC": (1, 2), None: ()}[spec.layout]


def _unsquare(recipe: Recipe, spec: InputSpec, sizes: dict[str, int]) -> None:
    """Move one side of a square picture to another size, where one of them is free to."""
    sides = [spec.shape[axis] for axis in sides_of(spec) if axis < len(spec.shape)]
    known = [sizes[each] if isinstance(each, str) else each for each in sides]
    if len(set(known)) != 1 or len(set(sides)) == 1:
        return
    for name in reversed(sides):
        bounds = recipe.signature.axes.get(str(name))
        others = [each for each in bounds.sizes if each != known[0]] if bounds else []
        if isinstance(name, str) and others:
            sizes[name] = others[-1]
            return


def size_probes(recipe: Recipe, covered: frozenset[int]) -> Iterator[tuple[str, int, Sizes]]:
    """Yield name, rows and sizes of the probes that take each axis to its ends.

    One axis at a time is moved, while the others stay as usual.

    Args:
        recipe: Which axes are free, and between which bounds.
        covered: Batch sizes that other probes have already.
    """
    axes = recipe.signature.axes
    batch = axes.get("batch", BATCH)
    for rows in sorted({*BATCH_SIZES, batch.max} - covered):
        yield f"{WHOLE}batch-{rows}", rows, {}
    usual = usual_sizes(recipe)
    for name, bounds in axes.items():
        for size in bounds.sizes:
            if name in usual and size != usual[name]:
                yield f"{WHOLE}{name}-{size}", _ROWS, usual | {name: size}


def unbounded_axes(recipe: Recipe) -> tuple[str, ...]:
    """Return the free axes, but the batch, of which the recipe says no bounds."""
    return tuple(name for name in usual_sizes(recipe) if name not in recipe.signature.axes)
