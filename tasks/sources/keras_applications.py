"""Models of ``keras.applications``, with their published weights or with random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.domain.errors import AcquisitionError, ConfigurationError
from tasks.domain.recipe import KerasApplication
from tasks.runners.keras_runner import MODEL_FILE, import_keras
from tasks.sources import AcquireReply, AcquireRequest
from tasks.sources.keras_saving import save_model

if TYPE_CHECKING:
    from pathlib import Path

    from keras import Model, Variable
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
        randomise(model, source.seed)
    else:
        _load_weights(model, request, source)
    save_model(model, request.folder / MODEL_FILE)
    note = f"random weights, seed {source.seed}" if source.seeded else f"weights {source.weights}"
    return AcquireReply(notes=(f"keras.applications.{source.model}, {note}",))


def _build(request: AcquireRequest, source: KerasApplication) -> Model:
    keras = import_keras()
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


def randomise(model: Model, seed: int) -> None:
    """Give every weight of ``model`` a random value that keeps signals alive.

    Fresh BatchNormalization statistics (mean 0, variance 1) and zero biases would hide a
    converter that drops them, so they are random too. Kernels have the variance that keeps
    a signal's size through rectifiers (He et al. 2015, https://arxiv.org/abs/1502.01852).
    """
    random = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(_random_value(random, variable.path.split("/")[-1], variable))


def _random_value(
    random: np.random.Generator,
    name: str,
    variable: Variable,
) -> NDArray[np.generic]:
    shape = tuple(variable.shape)
    match name:
        case "gamma":
            value = random.uniform(0.4, 0.8, shape)
        case "moving_variance":
            value = random.uniform(0.5, 1.5, shape)
        case "beta" | "bias" | "moving_mean":
            value = random.normal(0.0, 0.1, shape)
        case "count" | "seed_generator_state":
            return np.asarray(variable)
        case _:
            fan_in = np.prod(shape[:-1]) if "depthwise" not in name else np.prod(shape[:2])
            value = random.normal(0.0, np.sqrt(2.0 / max(float(fan_in), 1.0)), shape)
    return value.astype(variable.dtype)
