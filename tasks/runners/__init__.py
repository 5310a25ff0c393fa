"""The runners: one module for each runtime, answering named arrays with named arrays.

A runner lives in a child process of its format's family. Importing its module imports no
framework; opening it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from tasks.domain.artifact import ModelFormat, ModelSignature
from tasks.isolation import Family

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from tasks.domain.diagnosis import Optimisation
    from tasks.domain.recipe import Recipe

Device = Literal["cpu", "cuda"]


class Runner(Protocol):
    """A loaded model.

    Every implementation must pass ``tests/contract/test_runners.py``.
    """

    @property
    def runtime(self) -> str:
        """What runs it, with version and device, such as ``torch 2.14.1 cpu``."""
        ...

    def signature(self) -> ModelSignature | None:
        """Return what the model file itself declares, or ``None`` where the format cannot say."""
        ...

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Answer one batch.

        Args:
            inputs: By the recipe's input names, first axis the rows. Strings come as ``<U``.

        Returns:
            By the recipe's output names, first axis the rows. Strings leave as ``<U``.
        """
        ...


FAMILIES = {
    ModelFormat.SKLEARN: Family.SKLEARN,
    ModelFormat.TORCH: Family.TORCH,
    ModelFormat.KERAS: Family.TENSORFLOW,
    ModelFormat.SAVED_MODEL: Family.TENSORFLOW_LEGACY,
    ModelFormat.ONNX: Family.ONNXRUNTIME,
}
"""In which family of processes each format is run."""


def open_runner(
    recipe: Recipe,
    format_: ModelFormat,
    folder: Path,
    device: Device,
    optimisation: Optimisation = "all",
) -> Runner:
    """Load the model in ``folder`` on ``device``; ``optimisation`` is of meaning for ONNX alone.

    Raises:
        VerificationError: The files do not load as this format.
        ConfigurationError: ``device`` is not there; nothing falls back to the CPU in silence.
    """
    match format_:
        case ModelFormat.SKLEARN:
            from tasks.runners.sklearn_runner import SklearnRunner

            return SklearnRunner.load(recipe, folder)
        case ModelFormat.TORCH:
            from tasks.runners.torch_runner import TorchRunner

            return TorchRunner.load(recipe, folder, device)
        case ModelFormat.KERAS:
            from tasks.runners.keras_runner import KerasRunner

            return KerasRunner.load(recipe, folder, device)
        case ModelFormat.SAVED_MODEL:
            from tasks.runners.saved_model_runner import SavedModelRunner

            return SavedModelRunner.load(recipe, folder, device)
        case ModelFormat.ONNX:
            from tasks.runners.onnxruntime_runner import OnnxruntimeRunner

            return OnnxruntimeRunner.load(recipe, folder, device, optimisation)
