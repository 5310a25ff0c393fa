"""What these tests let a child process do: convert graphs with onnx-tf and run them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.arrays import load_arrays, save_arrays
from tasks.child import report_progress
from tasks.domain.errors import ExportError
from tasks.domain.value import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RunGraphs(Value):
    """Folders, each with ``model.onnx`` and ``inputs.npz``; ``answers.npz`` is added."""

    folders: tuple[Path, ...]


class Ran(Value):
    """By folder name, why a graph was refused or failed; those that ran are not here."""

    refused: dict[str, str] = {}
    failed: dict[str, str] = {}


class Nothing(Value):
    """No question."""


class Table(Value):
    """Operator versions, each as ``domain operator version``."""

    ours: tuple[str, ...]
    all: tuple[str, ...]


def run_graphs(request: RunGraphs) -> Ran:
    """Convert and run each graph."""
    import onnx

    from tasks.onnxtf.backend import load_backend

    backend = load_backend()
    refused, failed = {}, {}
    for number, folder in enumerate(request.folders):
        report_progress(number / len(request.folders))
        try:
            graph = backend.prepare(onnx.load(folder / "model.onnx"), logging_level="ERROR")
            answers = graph.run(load_arrays(folder / "inputs.npz"))
            save_arrays(folder / "answers.npz", _as_arrays(answers))
        except ExportError as error:
            refused[folder.name] = str(error)
        except Exception as error:  # noqa: BLE001 - what fails aloud is the test's business
            failed[folder.name] = f"{type(error).__name__}: {str(error)[:300]}"
    return Ran(refused=refused, failed=failed)


def _as_arrays(answers: tuple[object, ...]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for index, answer in enumerate(answers):
        array = np.asarray(answer)
        if array.dtype == object:
            array = np.char.decode(array.astype(np.bytes_), "utf-8")
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        arrays[str(index)] = array
    return arrays


def list_operators(request: Nothing) -> Table:
    """Say which operator versions there are handlers for, and which of them are ours."""
    del request
    from tasks.onnxtf import registry
    from tasks.onnxtf.backend import load_backend

    load_backend()
    ours = {f"{e.domain} {e.name} {v}" for e in registry._entries for v in e.versions}
    every = {
        f"{domain} {name} {version}"
        for (domain, name), handler in registry.handlers().items()
        for version in registry.versions(handler)
    }
    return Table(ours=tuple(sorted(ours)), all=tuple(sorted(every)))
