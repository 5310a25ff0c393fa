"""Torch networks on disk: how sources write them, and how runners and converters open them.

A network whose architecture the recipe names is kept as its state dict, ``model.pt``; a
program carries its own graph, as ``program.pt`` (TorchScript) or ``program.pt2``.
"""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from tasks.domain.errors import ConfigurationError, VerificationError
from tasks.domain.recipe import Recipe
from tasks.domain.sources import TorchProgram, TorchTraining, TorchvisionModel

WEIGHTS = "model.pt"

# torchvision sets this with the published weights of these two, which are ports from TensorFlow
# (torchvision/models/googlenet.py and inception.py, ``transform_input``)
_TRANSFORM_INPUT = {"googlenet", "inception_v3"}


def small_network(name: str, labels: int = 10) -> Any:  # noqa: ANN401 - a torch.nn.Module
    """Build a small untrained classifier of single-channel pictures of 8 by 8 pixels.

    Args:
        name: ``cnn`` (input ``(batch, 1, 8, 8)``) or ``mlp`` (any shape of 64 numbers a row).
        labels: How many classes.
    """
    from torch import nn

    if name == "mlp":
        layers: dict[str, Any] = {
            "flatten": nn.Flatten(),
            "scale": nn.BatchNorm1d(64),
            "hidden": nn.Linear(64, 128),
            "relu": nn.ReLU(),
            "dropout": nn.Dropout(0.2),
            "head": nn.Linear(128, labels),
        }
    else:
        layers = {
            "scale": nn.BatchNorm2d(1),
            "conv1": nn.Conv2d(1, 16, 3, padding=1, bias=False),
            "norm1": nn.BatchNorm2d(16),
            "relu1": nn.ReLU(),
            "conv2": nn.Conv2d(16, 32, 3, padding=1, bias=False),
            "norm2": nn.BatchNorm2d(32),
            "relu2": nn.ReLU(),
            "pool": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(0.25),
            "head": nn.Linear(32 * 4 * 4, labels),
        }
    return nn.Sequential(OrderedDict(layers))


def torchvision_network(recipe: Recipe, source: TorchvisionModel) -> Any:  # noqa: ANN401
    """Build a torchvision architecture with fresh weights; nothing is downloaded.

    Raises:
        ConfigurationError: torchvision has no such model.
    """
    import torchvision

    names = torchvision.models.list_models()
    if source.model not in names:
        near = difflib.get_close_matches(source.model, names, n=3) or names[:3]
        message = (
            f"{recipe.name}: source.model: torchvision {torchvision.__version__} has no model "
            f"'{source.model}' (nearest: {', '.join(near)})."
        )
        raise ConfigurationError(message)
    options: dict[str, Any] = {}
    builder = torchvision.models.get_model_builder(source.model)
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None  # its default would be fetched from the network
    if source.model in _TRANSFORM_INPUT and not source.seeded:
        options["transform_input"] = True
    with warnings.catch_warnings():
        # googlenet and inception announce a future default of their initialisation
        warnings.simplefilter("ignore", FutureWarning)
        return torchvision.models.get_model(source.model, weights=None, **options)


def save_weights(network: Any, folder: Path) -> None:  # noqa: ANN401
    """Write the state dict of ``network`` where ``open_network`` looks for it."""
    import torch

    torch.save(network.state_dict(), folder / WEIGHTS)


def load_weights(path: Path) -> dict[str, Any]:
    """Read a checkpoint's tensors; nothing in the file can run code.

    The tensors are mapped into memory, not copied, where the file's layout allows it.

    Raises:
        VerificationError: The file is no checkpoint, or holds more than plain tensors.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weights = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:
        message = f"{path.name}: not a plain torch checkpoint ({first_line(error)})."
        raise VerificationError(message) from error
    if not isinstance(weights, dict) or not weights:
        message = (
            f"{path.name}: a checkpoint must be a state dict "
            f"(expected tensors by name, got {type(weights).__name__})."
        )
        raise VerificationError(message)
    return weights


def fill(network: Any, weights: dict[str, Any], where: str) -> None:  # noqa: ANN401
    """Give ``network`` these weights, all of them and no others, without copying.

    Raises:
        VerificationError: Names or shapes differ from the architecture's.
    """
    try:
        network.load_state_dict(weights, strict=True, assign=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        detail = " ".join(lines[1:3]) or first_line(error)
        message = (
            f"{where}: the checkpoint does not fit {type(network).__name__} ({detail[:300]}). "
            "Name the architecture that the weights were trained with."
        )
        raise VerificationError(message) from error


def open_network(recipe: Recipe, folder: Path) -> Any:  # noqa: ANN401
    """Open the source model in ``folder`` in evaluation mode.

    Returns:
        A ``torch.nn.Module``, a ``torch.jit.ScriptModule`` or a
        ``torch.export.ExportedProgram``.

    Raises:
        VerificationError: The files do not load, or the model is in training mode.
    """
    import torch

    source = recipe.source
    if isinstance(source, TorchProgram):
        from tasks.sources.torch_program import open_program

        return open_program(folder)
    weights = load_weights(folder / WEIGHTS)
    try:
        with torch.device("meta"):  # no memory and no time for weights that are replaced at once
            network = _architecture(recipe)
    except NotImplementedError:  # RegNet computes its widths by tensors
        network = _architecture(recipe)
    fill(network, weights, recipe.name)
    if _left_empty(network):
        network = _architecture(recipe)
        fill(network, weights, recipe.name)
    return network.requires_grad_(requires_grad=False).eval()


def _architecture(recipe: Recipe) -> Any:  # noqa: ANN401
    source = recipe.source
    if isinstance(source, TorchvisionModel):
        return torchvision_network(recipe, source)
    if isinstance(source, TorchTraining):
        return small_network(source.network)
    message = f"{recipe.name}: source.kind '{source.kind}' is not a torch model."
    raise ConfigurationError(message)


def _left_empty(network: Any) -> bool:  # noqa: ANN401
    """Whether a tensor is not part of the state dict, so that loading did not fill it."""
    import torch

    for module in network.modules():
        own = (*vars(module).values(), *module._parameters.values(), *module._buffers.values())  # noqa: SLF001
        if any(isinstance(each, torch.Tensor) and each.is_meta for each in own):
            return True
    return False


def torch_device(device: str, where: str) -> Any:  # noqa: ANN401
    """Return the torch device.

    Raises:
        ConfigurationError: It is not there; nothing falls back to the CPU in silence.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        message = (
            f"{where}: device 'cuda' is not there (expected an NVIDIA GPU and its driver, got "
            f"torch {torch.__version__} {built}, {torch.cuda.device_count()} GPUs). "
            "Run it on a GPU worker, or set device: cpu."
        )
        raise ConfigurationError(message)
    return torch.device(device)


def first_line(error: BaseException, limit: int = 300) -> str:
    """Return what a framework's error says first, without terminal colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    line = next(iter(text.splitlines()), "") or "no words"
    return f"{type(error).__name__}: {line[:limit]}"
