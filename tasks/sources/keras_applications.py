"""Models of ``keras.applications``, with their published weights or with random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.domain.errors import AcquisitionError, ConfigurationError
from tasks.domain.sources import KerasApplication
from tasks.runners.keras_runner import MODEL_FILE, import_keras
from tasks.sources import AcquireReply, AcquireRequest
from tasks.sources.keras_saving import save_model
from tasks.steps.pictures import value_bounds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keras import KerasTensor, Layer, Model
    from numpy.typing import NDArray


def acquire(request: AcquireRequest) -> AcquireReply:
    """Build the application and save it as ``model.keras``.

    Named weights come from the recipe's download and nowhere else; seeded ones are random.

    Raises:
        ConfigurationError: Keras has no application of this name.
        AcquisitionError: The weights do not fit the application.
    """
    source = request.recipe.source
    if not isinstance(source, KerasApplication):
        message = f"{request.recipe.name}: source.kind: expected keras-applications"
        raise ConfigurationError(message)
    model = _build(request, source)
    if source.seeded:
        bounds = value_bounds(request.recipe, request.recipe.signature.inputs[0])
        randomise(model, source.seed, *(bounds or (-1.0, 1.0)))
    else:
        _load_weights(model, request, source)
    save_model(model, request.folder / MODEL_FILE)
    note = f"random weights, seed {source.seed}" if source.seeded else f"weights {source.weights}"
    return AcquireReply(notes=(f"keras.applications.{source.model}, {note}",))


def _build(request: AcquireRequest, source: KerasApplication) -> Model:
    keras = import_keras()
    keras.utils.set_random_seed(source.seed)
    keras.backend.clear_session()  # else names of layers count on from this process's last model
    applications = keras.applications
    build = getattr(applications, source.model, None)
    if not callable(build) or not source.model[:1].isupper():
        known = ", ".join(sorted(each for each in dir(applications) if each[:1].isupper()))
        message = (
            f"{request.recipe.name}: source.model: keras.applications has no '{source.model}' "
            f"(expected one of {known})."
        )
        raise ConfigurationError(message)
    shape = request.recipe.signature.inputs[0].shape[1:]
    classes = request.recipe.signature.outputs[0].shape[-1]
    try:
        return build(
            weights=None,
            input_shape=tuple(None if isinstance(dim, str) else dim for dim in shape),
            classes=classes,
            classifier_activation=None if source.head == "linear" else source.head,
        )
    except (ValueError, TypeError) as error:
        message = (
            f"{request.recipe.name}: source.model: {source.model} cannot be built for "
            f"{request.recipe.signature.plain}: {error}. Correct signature in the recipe."
        )
        raise ConfigurationError(message) from error


def _load_weights(model: Model, request: AcquireRequest, source: KerasApplication) -> None:
    (path,) = request.downloads
    try:
        model.load_weights(_with_suffix(path, request))
    except Exception as error:
        message = (
            f"{request.recipe.name}: source.download: the file does not hold the weights of "
            f"{source.model} (expected {model.count_params():,} parameters): "
            f"{type(error).__name__}: {str(error)[:500]}. Check the model's name and the file."
        )
        raise AcquisitionError(message) from error


def _with_suffix(path: Path, request: AcquireRequest) -> Path:
    """Give a download a name from which Keras knows its format."""
    if path.suffix in (".h5", ".keras"):
        return path
    download = getattr(request.recipe.source, "download", None)
    name = str(download.uri).rsplit("/", 1)[-1] if download else "weights.h5"
    link = request.folder.with_name(f"{request.folder.name}-{name}")
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    return link


def randomise(model: Model, seed: int, low: float = -1.0, high: float = 1.0) -> None:
    """Give every weight of ``model`` a random value, so that its answers differ by its inputs.

    Fresh BatchNormalization statistics (mean 0, variance 1) and zero biases would hide a
    converter that drops them. Kernels have the variance that keeps a signal's size through
    rectifiers (He et al. 2015, https://arxiv.org/abs/1502.01852); the statistics are those
    of random pictures, so that signals neither fade nor explode in any depth.

    Args:
        model: Changed in place.
        seed: Decides every value.
        low: The lowest value of its inputs.
        high: The highest value of its inputs.
    """
    keras = import_keras()
    random = np.random.default_rng(seed)
    for variable in model.weights:
        name = variable.path.split("/")[-1]
        if name in _RANDOM:
            variable.assign(_RANDOM[name](random, tuple(variable.shape)).astype(variable.dtype))
        elif "kernel" in name or name == "embeddings":
            variable.assign(_kernel(random, tuple(variable.shape)).astype(variable.dtype))
    layers = [
        layer
        for layer in model._flatten_layers()  # noqa: SLF001 - models may stand in models
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if layers and model.inputs:
        inputs = [_pictures(random, each, low, high) for each in model.inputs]
        _measure_statistics(model, layers, inputs)


_RANDOM: dict[str, Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]] = {
    "gamma": lambda random, shape: random.uniform(0.1, 0.4, shape),
    "beta": lambda random, shape: random.normal(0.0, 0.3, shape),
    "bias": lambda random, shape: random.normal(0.0, 0.1, shape),
}


def _kernel(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    depthwise = len(shape) == 4 and shape[-1] == 1  # noqa: PLR2004 - height, width, in, out
    fan_in = float(np.prod(shape[:2] if depthwise else shape[:-1]))
    return random.normal(0.0, np.sqrt(2.0 / max(fan_in, 1.0)), shape)


def _pictures(
    random: np.random.Generator, tensor: KerasTensor, low: float, high: float
) -> NDArray[np.float32]:
    """Return four rows for an input: half noise, half large patches where it is a picture."""
    shape = tuple(size or 32 for size in tensor.shape[1:])
    rows = random.uniform(low, high, (4, *shape))
    if len(shape) == 3:  # noqa: PLR2004 - height, width, channels
        height, width, channels = shape
        patches = random.uniform(low, high, (2, 8, 8, channels))
        down, across = np.arange(height) * 8 // height, np.arange(width) * 8 // width
        rows[2:] = patches[:, down][:, :, across]
    return rows.astype(np.float32)


def _measure_statistics(
    model: Model, layers: list[Layer], inputs: list[NDArray[np.float32]]
) -> None:
    """Make what ``inputs`` do in the model its moving mean and variance."""
    momentum = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(inputs[0] if len(inputs) == 1 else inputs, training=True)
    for layer, original in zip(layers, momentum, strict=True):
        layer.momentum = original
        for variable in (layer.moving_mean, layer.moving_variance):
            # rounded, since threads may sum in another order the next time
            variable.assign(np.asarray(variable).astype(np.float16).astype(variable.dtype))
