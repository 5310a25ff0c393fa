"""When two tensors are the same but for rounding, and which tensor of the other side one is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from tasks.domain.parity import Tolerance
    from tasks.tracing.recording import TracedTensor

PARAMETER = "parameter "
"""How the names of a source's weights begin, to tell them from what it computes."""
_LAYOUTS = {3: ((0, 1, 2), (0, 2, 1)), 4: ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)),
            5: ((0, 1, 2, 3, 4), (0, 2, 3, 4, 1), (0, 4, 1, 2, 3))}  # fmt: skip
"""Channels last, channels first; never height and width swapped, which is a fault."""


def close(reference: NDArray[Any], candidate: NDArray[Any], tolerance: Tolerance) -> bool:
    """Whether rounding explains the difference of two arrays of one size, element by element."""
    if reference.size != candidate.size:
        return False
    ours, theirs = reference.ravel(), candidate.ravel()
    if not (_numeric(ours) and _numeric(theirs)):
        return bool(np.array_equal(ours.astype(np.str_), theirs.astype(np.str_)))
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(ours)
    if not np.array_equal(finite, np.isfinite(theirs)):
        return False
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return False
    ours, theirs = ours[finite], theirs[finite]
    largest = np.abs(ours).max(initial=0)
    allowed = tolerance.rtol * np.abs(ours) + tolerance.scale * largest + tolerance.floor
    return bool(np.all(np.abs(ours - theirs) <= allowed))


def distance(reference: NDArray[Any], candidate: NDArray[Any]) -> float | None:
    """Return the largest error; None where shapes differ or a value is not finite."""
    if reference.shape != candidate.shape or not (_numeric(reference) and _numeric(candidate)):
        return None
    with np.errstate(invalid="ignore"):
        error = np.abs(reference.astype(np.float64) - candidate.astype(np.float64))
    return float(error.max(initial=0)) if np.isfinite(error).all() else None


@dataclass
class Known:
    """One tensor that is right, and where it was made."""

    place: int
    tensor: TracedTensor
    array: NDArray[Any]
    met: bool = False
    """Whether the wrong model has it too."""


class RightTensors:
    """The tensors of the side that is right, to be found by value."""

    def __init__(
        self, traced: Iterable[tuple[TracedTensor, NDArray[Any]]], tolerance: Tolerance
    ) -> None:
        self.tolerance = tolerance
        self.made: list[Known] = []
        self.parameters: list[Known] = []
        self._by_size: defaultdict[int, list[Known]] = defaultdict(list)
        for place, (tensor, array) in enumerate(traced):
            known = Known(place, tensor, array)
            if tensor.name.startswith(PARAMETER):
                self.parameters.append(known)
            else:
                self.made.append(known)
                self._by_size[array.size].append(known)

    def find(self, array: NDArray[Any]) -> Known | None:
        """Return the first tensor of this value, whatever its layout; mark all of them as met."""
        found = [
            known
            for known in self._by_size[array.size]
            if any(close(each, array, self.tolerance) for each in _layouts(known.array))
        ]
        for known in found:
            known.met = True
        return found[0] if found else None

    def next_unmet(self, size: int, after: int, layer: str = "") -> Known | None:
        """Return the tensor that should have been met: of this size, behind ``after``."""
        behind = [k for k in self._by_size[size] if k.place > after and not k.met]
        floats = [k for k in behind if k.array.dtype.kind == "f"]
        named = [k for k in floats if layer and _same_layer(k.tensor.layer, layer)]
        return next(iter(named or floats), None)


def _layouts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for order in _LAYOUTS.get(array.ndim, (tuple(range(array.ndim)),)):
        yield array.transpose(order)


def as_laid_out(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return ``array`` in the layout that has ``shape``, or reshaped to it."""
    for each in _layouts(array):
        if each.shape == shape:
            return np.ascontiguousarray(each)
    return array.reshape(shape) if array.size == np.prod(shape, dtype=int) else array


def _same_layer(ours: str, theirs: str) -> bool:
    def plain(name: str) -> str:
        return name.replace("/", ".").strip(".")

    return plain(ours) == plain(theirs)


def _numeric(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "fiubc" or array.dtype.name in {"bfloat16", "float16"}
