"""Structured rows of the declared domain: a property-based search for inputs that break parity.

Hypothesis chooses what each row looks like; few bits describe a row, however large it is. Only
``st.booleans`` is drawn from: for whole numbers, floats and texts Hypothesis also tries constants
that it finds in whatever modules of ours happen to be loaded, so that the same recipe would give
other rows in another process.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from tasks.domain.domains import Image, Mask, OneHot, Tokens
from tasks.domain.signature import Choice, InputSpec, Range
from tasks.steps.axes import usual_sizes
from tasks.steps.draw import as_declared, bounds, draw, mask_of, shape_for, tokens_of
from tasks.steps.pictures import normalised

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn, SearchStrategy
    from numpy.typing import NDArray

    from tasks.domain.recipe import Recipe

    Array = NDArray[Any]
    Inputs = dict[str, Array]

SEARCH = "search"
"""The name of the probe."""

_ROWS, _HEAVY_ROWS, _HEAVY_BYTES = 16, 2, 256_000
_VALUES = 4
"""Special values that a row may take at most, unless it takes one for each element."""
_SMALL = 32
"""An input of so few elements may get a value of its own for each."""

_TELLING = (0, 1, -1, 0.5, 2, 127, 128, 255, 256, 32767, 65504, 65535, 2**24 + 1, 2**31 - 1)
"""Where dtypes, roundings and look-ups end; those outside a domain are left out."""
_PIXELS = (0, 255, 128, 127, 1, 254)


class _Look(NamedTuple):
    """What one input of one row looks like; all of it was chosen by Hypothesis."""

    pattern: int
    picks: tuple[int, ...]
    """Places in the input's special values, to be taken modulo their number."""
    length: int
    """Of a run, or how many elements stand out."""
    seed: int


def search_rows(recipe: Recipe) -> int:
    """Return how many rows are searched: the recipe's word, or few where rows are large."""
    if recipe.parity.search is not None:
        return recipe.parity.search
    sizes = usual_sizes(recipe)
    row_bytes = sum(
        prod(shape_for(spec, 1, sizes)) * (np.dtype(spec.dtype).itemsize if _numeric(spec) else 4)
        for spec in recipe.signature.inputs
    )
    return _HEAVY_ROWS if row_bytes > _HEAVY_BYTES else _ROWS


def search_probe(recipe: Recipe) -> Inputs | None:
    """Return the rows of the search, or None where the recipe switches it off.

    The same recipe gives the same rows, bit for bit, in every process. They can be fewer than
    asked for where the domain has no more looks than that.

    Raises:
        ConfigurationError: A domain does not fit its dtype.
    """
    wanted = search_rows(recipe)
    if not wanted:
        return None
    rows = [_row(recipe, looks) for looks in _looks(recipe, wanted)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _looks(recipe: Recipe, wanted: int) -> list[tuple[_Look, ...]]:
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    found: list[tuple[_Look, ...]] = []
    inputs = len(recipe.signature.inputs)

    @seed(recipe.parity.seed)
    @settings(
        max_examples=wanted,
        database=None,
        derandomize=False,  # a seed is given; this would take the source text for one
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*[_look_strategy()] * inputs))
    def collect(looks: tuple[_Look, ...]) -> None:
        found.append(looks)

    collect()
    return found[:wanted]


def _look_strategy() -> SearchStrategy[_Look]:
    from hypothesis import strategies as st

    def bits(count: int) -> SearchStrategy[int]:
        """Return a number of ``count`` bits, of booleans alone."""
        each = st.lists(st.booleans(), min_size=count, max_size=count)
        return each.map(lambda drawn: sum(bit << i for i, bit in enumerate(drawn)))

    @st.composite
    def look(choose: DrawFn) -> _Look:
        picks = tuple(choose(bits(5)) for _ in range(_VALUES))
        return _Look(choose(bits(6)), picks, 1 + choose(bits(3)), choose(bits(16)))

    return look()


def _row(recipe: Recipe, looks: tuple[_Look, ...]) -> Inputs:
    """Return one row for every input; masks fit their tokens."""
    specs, sizes = recipe.signature.inputs, usual_sizes(recipe)
    row = {
        spec.name: _one(recipe, spec, shape_for(spec, 1, sizes), look)
        for spec, look in zip(specs, looks, strict=True)
        if not isinstance(spec.domain, Mask)
    }
    return {spec.name: row.get(spec.name, mask_of(recipe, spec, row)) for spec in specs}


def _one(recipe: Recipe, spec: InputSpec, shape: tuple[int, ...], look: _Look) -> Array:
    """Return one row of one input: looked up in its special values, then made valid."""
    rng = np.random.default_rng(look.seed)
    match spec.domain:
        case Image():
            last = (1, shape[2], shape[3], shape[1]) if spec.layout == "NCHW" else shape
            pixels = _fill(look, np.array(_PIXELS), last, rng, rng.integers(256, size=last))
            return normalised(spec, pixels, recipe.preprocessing)
        case OneHot():
            classes = shape[-1]
            ordinary = rng.integers(classes, size=shape[:-1])
            hot = _fill(look, np.arange(classes), shape[:-1], rng, ordinary)
            return np.eye(classes, dtype=spec.dtype)[hot]
        case Tokens():
            ordinary = draw(spec, 2, rng, usual_sizes(recipe))[1:]
            filled = _fill(look, _tokens(spec, spec.domain), shape, rng, ordinary)
            # the padding of an ordinary row stands at its end, and stays there
            return filled if spec.domain.padding is None else _padded(ordinary, filled, spec.domain)
        case _:
            ordinary = draw(spec, 1, rng, usual_sizes(recipe))
            return _fill(look, specials(spec), shape, rng, ordinary)


def _padded(ordinary: Array, filled: Array, domain: Tokens) -> Array:
    either = (ordinary == domain.padding) | (filled == domain.padding)
    return np.where(either, ordinary, filled)


def specials(spec: InputSpec) -> Array:
    """Return the values of a range or a choice at which faults are likely; all are within it."""
    if isinstance(spec.domain, Choice):
        return as_declared(spec, spec.domain.values)
    assert isinstance(spec.domain, Range)  # noqa: S101 - others have a case of their own
    low, high = bounds(spec, spec.domain.low, spec.domain.high)
    if np.dtype(spec.dtype).kind != "f":
        near = [low, high, low + (high - low) // 2, min(low + 1, high), max(high - 1, low)]
        whole = [int(each) for each in _TELLING if each == int(each) and low <= each <= high]
        return np.array(list(dict.fromkeys([*map(int, near), *whole])), spec.dtype)
    ends = np.array([low, high], spec.dtype)
    inner = np.nextafter(ends, ends[::-1])
    middle = low / 2 + high / 2
    tiny = np.finfo(spec.dtype).tiny
    telling = [each for each in (*_TELLING, tiny, -tiny, middle) if low <= each <= high]
    values = np.concatenate([ends, np.array(telling, spec.dtype), inner])
    # rounding to the dtype may leave the range by a bit; what does is no input of the model
    values = values[(values >= low) & (values <= high)]
    return np.array(list(dict.fromkeys(values.tolist())) or [middle], spec.dtype)


def _tokens(spec: InputSpec, domain: Tokens) -> Array:
    least, last = tokens_of(domain)
    found = dict.fromkeys([least, last, min(least + 1, last), max(last - 1, least)])
    return np.array([each for each in found if each != domain.padding] or [least], spec.dtype)


# --- patterns -----------------------------------------------------------------------------


class _Canvas(NamedTuple):
    """What a pattern is made from."""

    values: Array
    """The special values that this row may take."""
    all_values: Array
    shape: tuple[int, ...]
    ordinary: Array
    """A random row of the domain."""
    length: int
    rng: np.random.Generator


def _fill(
    look: _Look, values: Array, shape: tuple[int, ...], rng: np.random.Generator, ordinary: Array
) -> Array:
    picked = values[[pick % len(values) for pick in look.picks]]
    patterns = _PATTERNS if prod(shape) <= _SMALL else _PATTERNS[:-1]
    canvas = _Canvas(picked, values, shape, ordinary, look.length, rng)
    filled = patterns[look.pattern % len(patterns)](canvas)
    return np.asarray(np.broadcast_to(filled, shape)).astype(values.dtype)


def _spots(base: Array, canvas: _Canvas) -> Array:
    """Put a special value at one to eight places."""
    flat = np.array(base, dtype=np.result_type(base, canvas.values)).reshape(-1)
    count = min(canvas.length, flat.size)
    flat[canvas.rng.choice(flat.size, count, replace=False)] = canvas.values[0]
    return flat.reshape(canvas.shape)


def _constant(canvas: _Canvas) -> Array:
    return np.full(canvas.shape, canvas.values[0])


def _ordinary_with_spots(canvas: _Canvas) -> Array:
    return _spots(canvas.ordinary, canvas)


def _constant_with_spots(canvas: _Canvas) -> Array:
    return _spots(np.full(canvas.shape, canvas.values[1]), canvas)


def _few_values(canvas: _Canvas) -> Array:
    return canvas.values[canvas.rng.integers(len(canvas.values), size=canvas.shape)]


def _runs(canvas: _Canvas) -> Array:
    """Return runs of equal values, one after another."""
    places = np.arange(prod(canvas.shape)) // canvas.length % len(canvas.values)
    return canvas.values[places].reshape(canvas.shape)


def _planes(canvas: _Canvas) -> Array:
    """Return one value for each index of the first axis behind the batch, such as a channel."""
    places = canvas.rng.integers(len(canvas.values), size=canvas.shape[:2])
    return canvas.values[places].reshape(places.shape + (1,) * (len(canvas.shape) - 2))


def _stripes(canvas: _Canvas) -> Array:
    """Return one value for each index of the last axis."""
    return canvas.values[canvas.rng.integers(len(canvas.values), size=canvas.shape[-1:])]


def _ramp(canvas: _Canvas) -> Array:
    """Return an ordinary row's values, rising."""
    return np.sort(canvas.ordinary.reshape(-1)).reshape(canvas.shape)


def _repeats(canvas: _Canvas) -> Array:
    """Return an ordinary row in which runs of elements are equal."""
    flat = canvas.ordinary.reshape(-1)
    run = canvas.length + 1
    return flat[np.arange(flat.size) // run * run].reshape(canvas.shape)


def _each_its_own(canvas: _Canvas) -> Array:
    """Return any special value at any place; for small inputs, where that says something."""
    return canvas.all_values[canvas.rng.integers(len(canvas.all_values), size=canvas.shape)]


_PATTERNS: Final[tuple[Callable[[_Canvas], Array], ...]] = (
    _constant,
    _ordinary_with_spots,
    _constant_with_spots,
    _few_values,
    _runs,
    _planes,
    _stripes,
    _ramp,
    _repeats,
    _each_its_own,
)


def _numeric(spec: InputSpec) -> bool:
    return spec.dtype != "string"
