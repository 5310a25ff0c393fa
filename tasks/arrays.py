"""Named arrays in a file: how probes and answers pass between processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


def save_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write ``arrays`` as an uncompressed ``.npz``; object arrays of strings become ``<U``.

    Raises:
        ValueError: An object array holds something other than strings.
    """
    plain: dict[str, NDArray[np.generic]] = {}
    for name, array in arrays.items():
        if array.dtype == object:
            if not all(isinstance(item, str) for item in array.ravel()):
                message = f"{name}: an object array may hold strings alone"
                raise ValueError(message)
            plain[name] = array.astype(np.str_)
        else:
            plain[name] = array
    np.savez(path, allow_pickle=False, **plain)


def load_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read what ``save_arrays`` wrote; nothing in the file can run code."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
