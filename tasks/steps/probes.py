"""The rows on which models are compared: random ones, real ones, and those at the edges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.domains import BATCH
from tasks.domain.errors import ConfigurationError
from tasks.domain.recipe import HeldOutRows, Pictures, Recipe, Rows
from tasks.domain.release import ProbeInfo
from tasks.domain.value import Value
from tasks.steps.answer import BATCH_BYTES
from tasks.steps.axes import size_probes, unbounded_axes, usual_sizes
from tasks.steps.draw import as_declared, draw_inputs
from tasks.steps.edges import edge_probes
from tasks.steps.pictures import LEAST_REAL, picture_rows
from tasks.steps.search import SEARCH, search_probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tasks.steps.axes import Sizes

    Inputs = dict[str, NDArray[Any]]

_REPEATS = 3
_EDGES, _SIZES = 1, 2
"""Whose chance it is: each has a generator of its own."""


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
    policy = recipe.parity
    rng = np.random.default_rng(policy.seed)
    random = draw_inputs(recipe, policy.random_rows, rng)
    yield "random", _about_random(recipe), random
    yield from _real(request)
    again = {name: np.repeat(each[:1], _REPEATS, axis=0) for name, each in random.items()}
    single = draw_inputs(recipe, 1, rng)
    # a generator of its own, so that a further edge changes no other row
    yield from edge_probes(recipe, random, np.random.default_rng([policy.seed, _EDGES]))
    yield "repeated-row", "the first random row, three times", again
    yield "single-row", "one random row alone", single
    rng = np.random.default_rng([policy.seed, _SIZES])
    for name, rows, sizes in size_probes(recipe, _covered(recipe, random)):
        about = f"random rows, in one batch of {rows}{_in_words(sizes)}"
        yield name, about, draw_inputs(recipe, rows, rng, sizes)
    if (searched := search_probe(recipe)) is not None:
        yield SEARCH, "structured rows of the declared domain, chosen by Hypothesis", searched


def _about_random(recipe: Recipe) -> str:
    about = f"drawn from the declared domain with seed {recipe.parity.seed}"
    if loose := unbounded_axes(recipe):
        at = ", ".join(f"{name} {usual_sizes(recipe)[name]}" for name in loose)
        about += f"; of one length alone, for signature.axes gives no bounds: {at}"
    return about


def _in_words(sizes: Sizes) -> str:
    return f", {', '.join(f'{name} {size}' for name, size in sizes.items())}" if sizes else ""


def _covered(recipe: Recipe, random: Inputs) -> frozenset[int]:
    """Return the batch sizes that are run anyway: one row, and all random rows if they go whole.

    Where the recipe gives no bound, any batch beyond the usual largest stands for it.
    """
    rows = recipe.parity.random_rows
    if sum(each.nbytes for each in random.values()) > BATCH_BYTES:
        return frozenset({1})
    bounds = recipe.signature.axes.get("batch")
    large = bounds is None and rows >= BATCH.max
    return frozenset({1, rows} | ({BATCH.max} if large else set()))


def _real(request: ProbesRequest) -> Iterator[tuple[str, str, Inputs]]:
    recipe = request.recipe
    match recipe.parity.real:
        case Pictures():
            files = len(request.pictures)
            rows = picture_rows(recipe, request.pictures)
            about = f"{files} real pictures, preprocessed as in training"
            if len(rows) > files:
                about += f"; then {len(rows) - files} parts and mirror images of them, likewise"
            yield "pictures", about, {recipe.signature.inputs[0].name: rows}
        case HeldOutRows(at_most=at_most):
            held_out = _held_out(request, at_most)
            yield "held-out", f"rows that training did not see{_few(held_out)}", held_out
        case Rows(values=values):
            written = _written(recipe, values)
            yield "rows", f"rows written in the recipe{_few(written)}", written
        case None:
            pass


def _few(inputs: Inputs) -> str:
    """Say that there are few rows, if so."""
    rows = min(len(each) for each in inputs.values())
    return f" ({rows} of them, fewer than the {LEAST_REAL} that parity asks for)" * (
        rows < LEAST_REAL
    )


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
