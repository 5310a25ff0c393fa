"""The sources: one module for each way to come by a model.

``acquire`` of each module runs in a child process and writes into ``request.folder``
everything that the format's runner and converters need to open the model with the recipe.
A source that trains also writes ``held_out.npz`` beside the model (see ``tasks.arrays``):
one array for each input, and the true answers as ``labels``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.isolation import Family

if TYPE_CHECKING:
    from collections.abc import Callable

HELD_OUT = "held_out.npz"


class AcquireRequest(Value):
    """What a source gets."""

    recipe: Recipe
    downloads: tuple[Path, ...]
    """The recipe's downloads, in the recipe's order, on this disk and already checked."""
    folder: Path
    """Empty folder for the source model."""


class AcquireReply(Value):
    """What a source tells of its work."""

    metrics: dict[str, float] = {}
    """Such as ``accuracy`` on the held-out rows, between 0 and 1."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceKind:
    """Where a kind of source is implemented."""

    module: str
    family: Family

    @property
    def acquire(self) -> Callable[[AcquireRequest], AcquireReply]:
        """The function to run in a child process."""
        function: Callable[[AcquireRequest], AcquireReply] = importlib.import_module(
            f"tasks.sources.{self.module}"
        ).acquire
        return function


SOURCES = {
    "train-sklearn": SourceKind("sklearn_training", Family.SKLEARN),
    "sklearn-pickle": SourceKind("sklearn_pickle", Family.SKLEARN),
    "train-torch": SourceKind("torch_training", Family.TORCH),
    "torchvision": SourceKind("torchvision_models", Family.TORCH),
    "torch-program": SourceKind("torch_program", Family.TORCH),
    "keras-applications": SourceKind("keras_applications", Family.TENSORFLOW),
    "keras-file": SourceKind("keras_file", Family.TENSORFLOW),
    "saved-model": SourceKind("saved_model_folder", Family.LIGHT),
}
