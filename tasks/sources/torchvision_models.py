"""torchvision's models, with published weights or with random ones."""

from __future__ import annotations

import difflib
import re
from typing import Any, cast

from tasks.child import report_progress
from tasks.domain.errors import AcquisitionError, ConfigurationError, VerificationError
from tasks.domain.recipe import Recipe, TorchvisionModel
from tasks.sources import AcquireReply, AcquireRequest
from tasks.sources.networks import fill, load_weights, save_weights, torchvision_network


def acquire(request: AcquireRequest) -> AcquireReply:
    """Build the architecture, give it the published or random weights, and keep them.

    Raises:
        ConfigurationError: torchvision has no such model or weights, or the recipe pins other
            bytes than torchvision's own name for the weights does.
        AcquisitionError: The checkpoint does not load or does not fit.
        SignatureMismatchError: The model does not answer as the recipe declares.
    """
    from tasks.runners.torch_runner import TorchRunner

    recipe = request.recipe
    source = cast("TorchvisionModel", recipe.source)
    if source.seeded:
        network = _seeded(recipe, source)
        notes: tuple[str, ...] = (f"random weights by seed {source.seed}: of use as a graph alone",)
    else:
        _check_name(recipe, source)
        network = torchvision_network(recipe, source)
        try:
            fill(network, load_weights(request.downloads[0]), recipe.name)
        except VerificationError as error:
            raise AcquisitionError(_placed(recipe.name, error)) from error
        notes = ()
    report_progress(0.7, "trying the model")
    network.eval().requires_grad_(requires_grad=False)
    runner = TorchRunner.of(recipe, network)
    runner.try_out()
    save_weights(network, request.folder)
    return AcquireReply(notes=notes)


def _placed(model: str, error: VerificationError) -> str:
    message = str(error)
    return message if message.startswith(f"{model}: ") else f"{model}: {message}"


def _check_name(recipe: Recipe, source: TorchvisionModel) -> None:
    """Hold the recipe's digest to the digits that torchvision itself puts into the file's name."""
    import torchvision

    torchvision_network_weights = torchvision.models.get_model_weights(source.model)
    names = [each.name for each in torchvision_network_weights]
    if source.weights not in names:
        near = difflib.get_close_matches(source.weights, names) or names
        message = (
            f"{recipe.name}: source.weights: {source.model} has no weights '{source.weights}' "
            f"(expected one of: {', '.join(near) or 'none'}, or 'seeded')."
        )
        raise ConfigurationError(message)
    digits = re.search(r"-([0-9a-f]{8,})\.", torchvision_network_weights[source.weights].url)
    pinned = source.download.sha256 if source.download else ""
    if digits and not pinned.startswith(digits[1]):
        message = (
            f"{recipe.name}: source.download.sha256: these are not {source.weights} of "
            f"{source.model} (expected a digest that begins with {digits[1]}, got {pinned[:12]})."
        )
        raise ConfigurationError(message)


def _seeded(recipe: Recipe, source: TorchvisionModel) -> Any:  # noqa: ANN401
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed)
        network = torchvision_network(recipe, source)
        with torch.no_grad():
            randomise(network)
    return network


def randomise(network: Any) -> None:  # noqa: ANN401
    """Make every weight random that a fresh network holds constant.

    Zero biases, unit scales and BatchNorm's first statistics (mean 0, variance 1) would let a
    candidate that drops them pass as equal; a head or a layer scale of zeros would make all
    answers alike. The spreads are narrow, so that activations neither vanish nor explode.
    """
    from torch import nn

    for module in network.modules():
        if getattr(module, "running_mean", None) is not None:
            nn.init.normal_(module.running_mean, 0.0, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.25)
        for values in module.parameters(recurse=False):
            if bool((values != values.flatten()[0]).any()):
                continue
            if values.ndim > 1:
                nn.init.normal_(values, 0.0, (values[0].numel()) ** -0.5)
            elif bool(values.flatten()[0] == 0):
                nn.init.normal_(values, 0.0, 0.1)
            else:
                nn.init.uniform_(values, 0.8, 1.25)
