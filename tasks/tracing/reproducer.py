"""A folder that shows one fault by itself, with onnxruntime and numpy alone."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.parity import Tolerance
    from tasks.tracing.cut import Cut

SCRIPT = Path(__file__).with_name("reproduce.py.txt")
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnx", "numpy")
_LEVELS = {"off": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "all": "ORT_ENABLE_ALL"}


def write_reproducer(
    folder: Path, cut: Cut, words: str, tolerance: Tolerance, optimisation: str = "off"
) -> None:
    """Write the cut-out graph, its input, both answers and the script into ``folder``."""
    import onnx

    onnx.save(cut.model, folder / "model.onnx")
    for name, arrays in (("inputs", cut.inputs), ("expected", cut.expected), ("got", cut.got)):
        _save(folder / f"{name}.npz", arrays)
    about = {
        "words": words,
        "versions": versions(),
        "optimisation": _LEVELS[optimisation],
        "rtol": tolerance.rtol,
        "scale": tolerance.scale,
        "floor": tolerance.floor,
    }
    (folder / "versions.json").write_text(json.dumps(about, indent=2) + "\n")
    shutil.copyfile(SCRIPT, folder / "reproduce.py")
    (folder / "README.txt").write_text(
        f"{words}\n\nRun it: python reproduce.py (needs onnxruntime and numpy; exits with 1 while "
        "the fault is there).\n"
    )


def versions() -> str:
    """Return what is installed of what the fault may lie in."""
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _save(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    # a prefix, for numpy has arguments of its own, which a tensor may be called like
    np.savez(path, allow_pickle=False, **{f"array:{name}": each for name, each in arrays.items()})
