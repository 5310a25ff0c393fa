"""torchvision's models, with published weights or with random ones."""

from __future__ import annotations

import difflib
import re
from typing import Any, cast

from tasks.child import report_progress
from tasks.domain.errors import AcquisitionError, ConfigurationError, VerificationError
from tasks.domain.recipe import Recipe
from tasks.domain.sources import TorchvisionModel
from tasks.sources import AcquireReply, AcquireRequest
from tasks.sources.networks import fill, load_weights, save_weights, torchvision_network

_SETTLING_ROWS = 6


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
        network = torchvision_network(recipe, source)
        _check_name(recipe, source)
        try:
            fill(network, load_weights(request.downloads[0]), recipe.name)
        except VerificationError as error:
            raise AcquisitionError(_placed(recipe.name, error)) from error
        notes = ()
    report_progress(0.7, "trying the model")
    network.eval().requires_grad_(requires_grad=False)
    TorchRunner.of(recipe, network).try_out()
    save_weights(network, request.folder)
    return AcquireReply(notes=notes)


def _placed(model: str, error: VerificationError) -> str:
    message = str(error)
    return message if message.startswith(f"{model}: ") else f"{model}: {message}"


def _check_name(recipe: Recipe, source: TorchvisionModel) -> None:
    """Hold the recipe's digest to the digits that torchvision itself puts into the file's name."""
    import torchvision

    published = torchvision.models.get_model_weights(source.model)
    names = [each.name for each in published]
    if source.weights not in names:
        near = difflib.get_close_matches(source.weights, names) or names
        message = (
            f"{recipe.name}: source.weights: {source.model} has no weights '{source.weights}' "
            f"(expected one of: {', '.join(near) or 'none'}, or 'seeded')."
        )
        raise ConfigurationError(message)
    digits = re.search(r"-([0-9a-f]{8,})\.", published[source.weights].url)
    pinned = source.download.digest.hexadecimal if source.download else ""
    if digits and not pinned.startswith(digits[1]):
        message = (
            f"{recipe.name}: source.download.sha256: these are not {source.weights} of "
            f"{source.model} (expected a digest that begins with {digits[1]}, got {pinned[:12]})."
        )
        raise ConfigurationError(message)


def _seeded(recipe: Recipe, source: TorchvisionModel) -> Any:  # noqa: ANN401
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(source.seed)
        network = torchvision_network(recipe, source)
        randomise(network)
        report_progress(0.3, "settling the random statistics")
        settle_statistics(network, _settling_rows(recipe))
    return network


def randomise(network: Any) -> None:  # noqa: ANN401
    """Make every weight random that a fresh network holds constant.

    Zero biases and unit scales would let a candidate that drops them pass as equal; a head or
    a layer scale of zeros would make all answers alike.
    """
    from torch import nn

    for values in network.parameters():
        first = values.flatten()[0]
        if bool((values != first).any()):
            continue
        if values.ndim > 1:
            nn.init.normal_(values, 0.0, values[0].numel() ** -0.5)
        elif bool(first == 0):
            nn.init.normal_(values, 0.0, 0.1)
        else:
            nn.init.uniform_(values, 0.8, 1.25)


def settle_statistics(network: Any, inputs: tuple[Any, ...]) -> None:  # noqa: ANN401
    """Give BatchNorm the statistics of these inputs, then set them a little off.

    Its first statistics (mean 0, variance 1) would hide a dropped bias, and make activations
    explode (ResNet-50) or vanish (MobileNetV2), so that all inputs are answered alike.
    """
    import torch

    norms = [each for each in network.modules() if getattr(each, "running_mean", None) is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average of what comes
    network.train()
    network(*inputs)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        mean, variance = norm.running_mean, norm.running_var
        mean.add_(variance.sqrt() * torch.randn_like(mean), alpha=0.1)
        variance.mul_(torch.empty_like(variance).uniform_(0.8, 1.25))


def _settling_rows(recipe: Recipe) -> tuple[Any, ...]:
    """Return rows for each input; of pictures half are soft blots of colour, half are noise.

    Returns:
        Tensors of the declared dtypes, a few rows each.
    """
    import torch

    from tasks.runners.torch_runner import example_inputs
    from tasks.steps.pictures import value_bounds

    tensors = []
    for spec, array in zip(recipe.signature.inputs, example_inputs(recipe).values(), strict=True):
        bounds = value_bounds(recipe, spec)
        if spec.layout != "NCHW" or spec.dtype != "float32" or bounds is None:
            tensors.append(torch.from_numpy(array))
            continue
        coarse = torch.empty(_SETTLING_ROWS, array.shape[1], 4, 4)
        coarse.uniform_(*bounds)
        size = array.shape[2:]
        rows = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
        # filters of fine detail see next to nothing in blots: by these alone they would be given
        # a variance by which they overwhelm all others once there is noise (EfficientNet)
        rows[::2] = torch.empty_like(rows[::2]).uniform_(*bounds)
        tensors.append(rows)
    return tuple(tensors)
