"""A weight outside the graph, and what is still to be done to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Step:
    """One thing to do to a weight's value."""

    key: Hashable
    """Equal for steps that do the same."""
    shape: tuple[int, ...]
    """The shape afterwards."""
    dtype: np.dtype[np.generic]
    """The type afterwards."""
    apply: Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight by its shape and type; its value is read only when it is written."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    read: Callable[[], Array]
    steps: tuple[Step, ...] = field(default=())

    def then(self, step: Step) -> Weight:
        """Return the weight with one more step to be done."""
        return Weight(self.name, step.shape, step.dtype, self.read, (*self.steps, step))

    @property
    def key(self) -> Hashable:
        """Equal for the same weight after the same steps; never by value."""
        return self.name, tuple(step.key for step in self.steps)

    @property
    def size_bytes(self) -> int:
        """The size of the value after all steps."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def value(self) -> Array:
        """Read the value and do all steps; contiguous, in ``shape`` and ``dtype``."""
        array = self.read()
        for step in self.steps:
            array = step.apply(array)
        return np.ascontiguousarray(array, dtype=self.dtype).reshape(self.shape)


def transposed(weight: Weight, axes: tuple[int, ...]) -> Weight:
    """Return ``weight`` with its axes in another order."""
    shape = tuple(weight.shape[axis] for axis in axes)
    return weight.then(
        Step(("transpose", axes), shape, weight.dtype, lambda array: array.transpose(axes))
    )


def reshaped(weight: Weight, shape: tuple[int, ...]) -> Weight:
    """Return ``weight`` in another shape of the same size."""
    return weight.then(
        Step(("reshape", shape), shape, weight.dtype, lambda array: array.reshape(shape))
    )


def cast(weight: Weight, dtype: np.dtype[np.generic]) -> Weight:
    """Return ``weight`` in another type."""
    return weight.then(
        Step(("cast", dtype.str), weight.shape, dtype, lambda array: array.astype(dtype))
    )


def scaled(weight: Weight, factor: NDArray[np.floating]) -> Weight:
    """Return ``weight`` with its first axis multiplied by ``factor``.

    Args:
        weight: A convolution's kernel, output channels first.
        factor: One number for each output channel.
    """
    column = factor.astype(weight.dtype).reshape(-1, *[1] * (len(weight.shape) - 1))

    def apply(array: Array) -> Array:
        product: Array = np.multiply(array, column)
        return product

    key = ("scale", column.tobytes())
    return weight.then(Step(key, weight.shape, weight.dtype, apply))
