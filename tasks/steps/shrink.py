"""Make a row that shows a fault simpler: fewer elements that differ from a row that passes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.domains import Mask, OneHot, Tokens
from tasks.domain.recipe import Recipe
from tasks.domain.signature import Range
from tasks.domain.value import Value
from tasks.steps.draw import bounds, draw_inputs, mask_of, tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Inputs = dict[str, Array]

FAILING = "failing"
_PLAIN_PROBES = ("zeros", "ones", "lowest", "highest")
_RANDOM_BASES = 4
_SCALES, _DIGITS = (0.125, 0.25, 0.5, 0.75, 1.0), (1, 2, 3)
_SHOWN = 3


class StartRequest(Value):
    """Which row is to be made simpler."""

    recipe: Recipe
    probe: str
    inputs: Path
    """Folder of the case's ``<probe>.npz``."""
    place: NonNegativeInt
    """The row, by its place there."""
    probes: Path
    """Folder of all probes, from which plain rows are taken."""
    folder: Path
    """Empty folder for ``failing.npz`` and the rows that it may be compared with."""


class Rows(Value):
    """Rows that were written, ``<name>.npz`` each, the simplest first."""

    names: tuple[str, ...]


class SimplerRequest(Value):
    """A row that fails and one that passes."""

    recipe: Recipe
    failing: Path
    passing: Path
    merge: tuple[Path, ...] = ()
    """Simpler variants of ``failing`` that failed too; what each left out is left out together."""
    values: bool = False
    """Whether to make the values simpler, not their number smaller."""
    grain: PositiveInt
    """Into how many parts to cut what differs."""
    most: PositiveInt
    """How many variants may be written."""
    folder: Path


class DescribeRequest(Value):
    """The simplest row that was found, and the row that passes."""

    recipe: Recipe
    failing: Path
    passing: Path


class Described(Value):
    """How a failing row differs from one that passes."""

    differing: NonNegativeInt
    elements: PositiveInt
    words: str


def start_shrinking(request: StartRequest) -> Rows:
    """Write the failing row alone, and rows of its shape that probably pass, plain ones first."""
    recipe = request.recipe
    whole = load_arrays(request.inputs / f"{request.probe}.npz")
    failing = {name: each[request.place : request.place + 1] for name, each in whole.items()}
    save_arrays(request.folder / f"{FAILING}.npz", failing)
    names = [FAILING]
    for name, base in _bases(recipe, request.probes, failing):
        fitted = _fitted(recipe, failing, base)
        if _differing(recipe, failing, fitted):
            save_arrays(request.folder / f"{name}.npz", fitted)
            names.append(name)
    return Rows(names=tuple(names))


def _bases(recipe: Recipe, probes: Path, failing: Inputs) -> Iterator[tuple[str, Inputs]]:
    shapes = {name: each.shape for name, each in failing.items()}
    for name in _PLAIN_PROBES:
        if (probes / f"{name}.npz").is_file():
            row = {key: each[:1] for key, each in load_arrays(probes / f"{name}.npz").items()}
            if {key: each.shape for key, each in row.items()} == shapes:
                yield name, row
    sizes = {
        dim: failing[spec.name].shape[axis]
        for spec in recipe.signature.inputs
        for axis, dim in spec.dynamic_axes.items()
        if axis
    }
    rng = np.random.default_rng([recipe.parity.seed, len(_PLAIN_PROBES)])
    for i in range(_RANDOM_BASES):
        yield f"random-{i}", draw_inputs(recipe, 1, rng, sizes)


def _fitted(recipe: Recipe, failing: Inputs, base: Inputs) -> Inputs:
    """Let a base have its padding where the failing row has it, so that any mixture is valid."""
    fitted = dict(base)
    for spec in recipe.signature.inputs:
        if isinstance(spec.domain, Tokens) and spec.domain.padding is not None:
            padding, (least, _) = spec.domain.padding, tokens_of(spec.domain)
            tokens = np.where(base[spec.name] == padding, least, base[spec.name])
            kept = failing[spec.name] == padding
            fitted[spec.name] = np.where(kept, padding, tokens).astype(spec.dtype)
    return _masked(recipe, fitted)


def _masked(recipe: Recipe, row: Inputs) -> Inputs:
    masks = {
        spec.name: mask_of(recipe, spec, row)
        for spec in recipe.signature.inputs
        if isinstance(spec.domain, Mask)
    }
    return row | masks


def make_simpler(request: SimplerRequest) -> Rows:
    """Write variants of a failing row that are simpler, the simplest first.

    Either parts of what differs are taken from the row that passes (each part but one, and each
    part alone), or the values that differ are rounded and moved towards the passing ones.
    """
    recipe = request.recipe
    failing, passing = load_arrays(request.failing), load_arrays(request.passing)
    made = []
    if request.merge:
        made.append(_merged(recipe, failing, passing, request.merge))
    make = _rounder(recipe, failing, passing) if request.values else _fewer(request)
    made += list(make)
    seen = {_bytes(failing), _bytes(passing)}
    names: list[str] = []
    for variant in made:
        row = _masked(recipe, variant)
        if _bytes(row) not in seen and len(names) < request.most:
            seen.add(_bytes(row))
            names.append(f"simpler-{len(names):02d}")
            save_arrays(request.folder / f"{names[-1]}.npz", row)
    return Rows(names=tuple(names))


def _fewer(request: SimplerRequest) -> Iterator[Inputs]:
    recipe = request.recipe
    failing, passing = load_arrays(request.failing), load_arrays(request.passing)
    units = _differing(recipe, failing, passing)
    parts = [part for part in np.array_split(np.arange(len(units)), request.grain) if len(part)]
    if 2 * len(parts) <= request.most:
        for part in parts:  # one part alone
            yield _mixed(recipe, passing, failing, [units[i] for i in part])
    for part in parts:  # all but one part
        yield _mixed(recipe, failing, passing, [units[i] for i in part])


def _merged(recipe: Recipe, failing: Inputs, passing: Inputs, paths: tuple[Path, ...]) -> Inputs:
    units: dict[tuple[str, int], None] = {}
    for path in paths:
        units |= dict.fromkeys(_differing(recipe, failing, load_arrays(path)))
    return _mixed(recipe, failing, passing, list(units))


def _rounder(recipe: Recipe, failing: Inputs, passing: Inputs) -> Iterator[Inputs]:
    """Yield rows whose numbers are nearer to the passing ones, and of few digits."""
    ranges = [each for each in recipe.signature.inputs if isinstance(each.domain, Range)]
    for scale in _SCALES:
        for digits in _DIGITS:
            row = dict(failing)
            for spec in ranges:
                assert isinstance(spec.domain, Range)  # noqa: S101 - chosen above
                low, high = bounds(spec, spec.domain.low, spec.domain.high)
                old, base = failing[spec.name], passing[spec.name]
                with np.errstate(all="ignore"):
                    moved = base + (old.astype(float) - base.astype(float)) * scale
                    near = np.vectorize(lambda x, digits=digits: float(f"{x:.{digits}g}"))(moved)
                    new = near.astype(spec.dtype)
                fits = np.isfinite(near) & (near >= low) & (near <= high) & (old != base)
                row[spec.name] = np.where(fits, new, old).astype(spec.dtype)
            yield row


# --- the elements of a row ----------------------------------------------------------------


def _flat(recipe: Recipe, row: Inputs, name: str) -> Array:
    """Return an input's elements one below another; the classes of one-hot are one element."""
    spec = next(each for each in recipe.signature.inputs if each.name == name)
    width = row[name].shape[-1] if isinstance(spec.domain, OneHot) else 1
    return row[name].reshape(-1, width)


def _differing(recipe: Recipe, one: Inputs, other: Inputs) -> list[tuple[str, int]]:
    """Return input and place of each element that differs; masks follow from their tokens."""
    return [
        (spec.name, int(place))
        for spec in recipe.signature.inputs
        if not isinstance(spec.domain, Mask)
        for place in np.flatnonzero(
            (_flat(recipe, one, spec.name) != _flat(recipe, other, spec.name)).any(axis=1)
        )
    ]


def _mixed(recipe: Recipe, row: Inputs, other: Inputs, units: list[tuple[str, int]]) -> Inputs:
    """Return ``row`` with the elements at ``units`` from ``other``."""
    mixed = {name: np.array(each) for name, each in row.items()}
    for name in {name for name, _ in units}:
        places = [place for of, place in units if of == name]
        # text of another length would be cut
        mixed[name] = mixed[name].astype(np.result_type(row[name], other[name]))
        _flat(recipe, mixed, name)[places] = _flat(recipe, other, name)[places]
    return mixed


def _bytes(row: Inputs) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, row[name].tobytes()) for name in sorted(row))


def describe(request: DescribeRequest) -> Described:
    """Say in words which elements of the failing row differ from the passing row."""
    recipe = request.recipe
    failing, passing = load_arrays(request.failing), load_arrays(request.passing)
    units = _differing(recipe, failing, passing)
    total = sum(
        len(_flat(recipe, failing, spec.name))
        for spec in recipe.signature.inputs
        if not isinstance(spec.domain, Mask)
    )
    shown = ", ".join(_element(recipe, failing, passing, *each) for each in units[:_SHOWN])
    more = f", and {len(units) - _SHOWN} more" if len(units) > _SHOWN else ""
    verb = "element differs" if total == 1 else "elements differ"
    words = f"{len(units)} of {total} {verb} from a row that passes: {shown}{more}"
    return Described(differing=len(units), elements=total, words=words)


def _element(recipe: Recipe, failing: Inputs, passing: Inputs, name: str, place: int) -> str:
    spec = next(each for each in recipe.signature.inputs if each.name == name)
    shape = failing[name].shape[1:]
    shape = shape[:-1] if isinstance(spec.domain, OneHot) else shape
    at = ",".join(str(int(each)) for each in np.unravel_index(place, shape)) if shape else ""
    new, old = (_flat(recipe, row, name)[place] for row in (failing, passing))
    if isinstance(spec.domain, OneHot):
        return f"{name}[{at}] is of class {int(new.argmax())} (not {int(old.argmax())})"
    return f"{name}[{at}] = {new.item()} (not {old.item()})"
