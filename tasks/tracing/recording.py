"""A trace: every tensor that a model makes of a few rows, in the order in which it makes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

_ARRAYS = "trace.npz"
_NAMES = "trace.json"


class TracedTensor(Value):
    """One tensor; its array has the same place in the file beside."""

    name: str
    """Of an ONNX tensor; of an operation or a method in a source framework."""
    layer: str = ""
    """The source framework's own name of the layer that made it."""


class Trace(Value):
    """All tensors of one side, or how far it got."""

    tensors: tuple[TracedTensor, ...]
    failed: str = ""
    """Why the model did not answer; what it made until then is here all the same."""
    failed_node: str = ""
    """The node of which the runtime says so."""


class TracedRows:
    """A trace in its folder, whose arrays are read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.trace = Trace.model_validate_json((folder / _NAMES).read_text())
        self._arrays = np.load(folder / _ARRAYS, allow_pickle=False)

    def __iter__(self) -> Iterator[tuple[TracedTensor, NDArray[Any]]]:
        """Yield every tensor with its array, in order."""
        for place, tensor in enumerate(self.trace.tensors):
            yield tensor, self._arrays[f"t{place}"]

    def by_name(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name; of several calls of one layer, the last."""
        return {tensor.name: array for tensor, array in self}


def write_trace(
    folder: Path,
    found: Iterable[tuple[TracedTensor, NDArray[Any]]],
    failed: str = "",
    failed_node: str = "",
) -> Trace:
    """Write a trace into ``folder``; what is no plain array is left out."""
    kept = [(tensor, np.asarray(array)) for tensor, array in found]
    kept = [(t, a.astype(np.str_) if a.dtype == object else a) for t, a in kept]
    arrays = {f"t{place}": array for place, (_, array) in enumerate(kept)}
    np.savez(folder / _ARRAYS, allow_pickle=False, **arrays)
    trace = Trace(tensors=tuple(t for t, _ in kept), failed=failed, failed_node=failed_node)
    (folder / _NAMES).write_text(trace.model_dump_json())
    return trace


def rows_of(probe: Path, places: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    """Return some rows of a file of named arrays."""
    with np.load(probe, allow_pickle=False) as file:
        return {name: file[name][list(places)] for name in file.files}
