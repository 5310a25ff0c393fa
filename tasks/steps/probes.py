"""The rows on which models are compared: random ones, real ones, and those at the edges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.errors import ConfigurationError
from tasks.domain.recipe import Choice, HeldOutRows, InputSpec, Pictures, Range, Recipe, Rows
from tasks.domain.release import ProbeInfo
from tasks.domain.value import Value
from tasks.steps.draw import as_declared, bounds, draw, shape_for
from tasks.steps.pictures import picture_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Inputs = dict[str, NDArray[Any]]

_REPEATS = 3


class ProbesRequest(Value):
    """What the probes are made from."""

    recipe: Recipe
    pictures: tuple[Path, ...]
    """The recipe's pictures, in the recipe's order, on this disk and already checked."""
    held_out: Path | None
    """What the training kept back, for recipes that train."""
    folder: Path
    """Empty folder for ``<probe>.npz``."""


class ProbesReply(Value):
    """The probes that were made."""

    probes: tuple[ProbeInfo, ...]


def make_probes(request: ProbesRequest) -> ProbesReply:
    """Write ``<probe>.npz`` for every probe that the recipe's domain and real data give.

    The same recipe gives the same rows, bit for bit.

    Raises:
        ConfigurationError: Real data do not fit the declared inputs, or a domain its dtype.
    """
    infos = []
    for name, about, inputs in _all_probes(request):
        rows = _check(request.recipe, name, inputs)
        save_arrays(request.folder / f"{name}.npz", inputs)
        infos.append(ProbeInfo(name=name, rows=rows, about=about))
    return ProbesReply(probes=tuple(infos))


def _all_probes(request: ProbesRequest) -> Iterator[tuple[str, str, Inputs]]:
    recipe = request.recipe
    specs, policy = recipe.signature.inputs, recipe.parity
    rng = np.random.default_rng(policy.seed)
    random = {spec.name: draw(spec, policy.random_rows, rng) for spec in specs}
    yield "random", f"drawn from the declared domain with seed {policy.seed}", random
    match policy.real:
        case Pictures():
            rows = picture_rows(recipe, request.pictures)
            yield "pictures", "real pictures, preprocessed as in training", {specs[0].name: rows}
        case HeldOutRows(at_most=at_most):
            yield "held-out", "rows that training did not see", _held_out(request, at_most)
        case Rows(values=values):
            yield "rows", "rows written in the recipe", _written(recipe, values)
        case None:
            pass
    edges = {spec.name: _edges(spec) for spec in specs}
    for name, about in _EDGES.items():
        if any(name in each for each in edges.values()):
            row = {spec.name: edges[spec.name].get(name, random[spec.name][:1]) for spec in specs}
            yield name, about, row
    again = {name: np.repeat(each[:1], _REPEATS, axis=0) for name, each in random.items()}
    yield "repeated-row", "the first random row, three times", again
    single = {spec.name: draw(spec, 1, rng) for spec in specs}
    yield "single-row", "one random row alone", single


_EDGES = {
    "zeros": "every number 0, or the domain's nearest to it",
    "ones": "every number 1, or the domain's nearest to it",
    "lowest": "every number the lowest of its domain",
    "highest": "every number the highest of its domain",
}


def _edges(spec: InputSpec) -> dict[str, NDArray[Any]]:
    """Return one row for each edge that makes sense in the input's domain."""
    ends = {name: as_declared(spec, [end])[0] for name, end in _ends(spec).items()}
    return {name: np.full(shape_for(spec, 1), end) for name, end in ends.items()}


def _ends(spec: InputSpec) -> dict[str, int | float | str]:
    match spec.domain:
        case Choice(values=values) if spec.dtype == "string":
            words = [str(each) for each in values]
            return {"lowest": min(words), "highest": max(words)}
        case Choice(values=values):
            numbers = [each for each in values if not isinstance(each, str)]
            if len(numbers) < len(values):
                as_declared(spec, values)  # says what is wrong
            return {
                "zeros": min(numbers, key=abs),
                "ones": min(numbers, key=lambda each: abs(each - 1)),
                "lowest": min(numbers),
                "highest": max(numbers),
            }
        case Range(low=low, high=high):
            least, greatest = bounds(spec, low, high)
            return {
                "zeros": min(max(0, least), greatest),
                "ones": min(max(1, least), greatest),
                "lowest": least,
                "highest": greatest,
            }


def _held_out(request: ProbesRequest, at_most: int) -> Inputs:
    where = f"{request.recipe.name}: held-out rows"
    if request.held_out is None:
        raise ConfigurationError(f"{where}: the source kept none back. Use 'rows' in the recipe.")
    arrays = load_arrays(request.held_out)
    names = [spec.name for spec in request.recipe.signature.inputs]
    if missing := [name for name in names if name not in arrays]:
        raise ConfigurationError(
            f"{where}: no array for input '{missing[0]}' (got {', '.join(arrays)}). "
            "Name the input as the source does."
        )
    return {name: arrays[name][:at_most] for name in names}


def _written(recipe: Recipe, values: dict[str, tuple[Any, ...]]) -> Inputs:
    specs = {spec.name: spec for spec in recipe.signature.inputs}
    if specs.keys() != values.keys():
        raise ConfigurationError(
            f"{recipe.name}: parity.real.values must name each input once "
            f"(expected {', '.join(specs)}, got {', '.join(values) or 'none'})."
        )
    return {name: as_declared(spec, values[name]) for name, spec in specs.items()}


def _check(recipe: Recipe, probe: str, inputs: Inputs) -> int:
    """Return how many rows the probe has, once each array is what the recipe declares."""
    counts = {len(each) for each in inputs.values()}
    for spec in recipe.signature.inputs:
        array = inputs[spec.name]
        dtype = "string" if array.dtype.kind == "U" else array.dtype.name
        fits = array.ndim == len(spec.shape) and all(
            isinstance(dim, str) or dim == size
            for dim, size in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or dtype != spec.dtype:
            raise ConfigurationError(
                f"{recipe.name}: probe '{probe}' does not fit the input (expected {spec}, got "
                f"{dtype}{list(array.shape)}). Correct the recipe's signature or its real data."
            )
    if len(counts) != 1 or 0 in counts:
        raise ConfigurationError(
            f"{recipe.name}: probe '{probe}': every input needs equally many rows, and at least "
            f"one (got {', '.join(f'{name} {len(each)}' for name, each in inputs.items())})."
        )
    return counts.pop()
