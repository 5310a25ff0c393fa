"""The source model in float64: what its float32 answers would be without rounding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import VerificationError

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.recipe import Recipe
    from tasks.runners import Runner

_NARROW = {"float16", "float32"}
_ON_PURPOSE = "it computes in 16 bits on purpose, which is more than rounding of float32"


def open_float64(recipe: Recipe, folder: Path) -> Runner:
    """Load the source model in ``folder`` so that it computes in float64, on the CPU.

    Its floating inputs and outputs are float64, whatever the recipe declares.

    Raises:
        VerificationError: Its format, or this model, cannot; the message says why.
    """
    match recipe.source_format:
        case ModelFormat.TORCH:
            return _torch(recipe, folder)
        case ModelFormat.KERAS:
            return _keras(recipe, folder)
        case ModelFormat.SKLEARN:
            from tasks.runners.sklearn_runner import SklearnRunner

            return SklearnRunner.load(in_float64(recipe), folder)
        case _:
            message = f"{recipe.source_format.label}: its graph has its dtypes fixed"
            raise VerificationError(message)


def in_float64(recipe: Recipe) -> Recipe:
    """Return the recipe with every floating input and output in float64."""
    signature = recipe.signature

    def widened(specs: Any) -> Any:  # noqa: ANN401 - inputs or outputs
        return tuple(
            each.model_copy(update={"dtype": "float64"}) if each.dtype in _NARROW else each
            for each in specs
        )

    sides = {"inputs": widened(signature.inputs), "outputs": widened(signature.outputs)}
    return recipe.model_copy(update={"signature": signature.model_copy(update=sides)})


def _torch(recipe: Recipe, folder: Path) -> Runner:
    import torch

    from tasks.runners.torch_runner import TorchRunner
    from tasks.sources.networks import open_network

    network = open_network(recipe, folder)
    if hasattr(network, "module"):  # an exported program
        network = network.module()
    narrow = {each.dtype for each in (*network.parameters(), *network.buffers())} & {
        torch.float16,
        torch.bfloat16,
    }
    if narrow:
        raise VerificationError(_ON_PURPOSE)
    return TorchRunner.of(in_float64(recipe), network.double())


def _keras(recipe: Recipe, folder: Path) -> Runner:
    from tasks.runners.keras_runner import MODEL_FILE, KerasRunner, import_keras, load_model

    keras = import_keras()
    model = load_model(folder / MODEL_FILE)
    try:
        text = model.to_json()
        wide = keras.models.model_from_json(json.dumps(_with_float64(json.loads(text))))
        wide.set_weights([each.astype("float64") for each in model.get_weights()])
    except Exception as error:
        message = f"Keras cannot build it anew in float64 ({type(error).__name__})"
        raise VerificationError(message) from error
    if "float16" in text:  # float16, bfloat16 and the policies that mix them
        raise VerificationError(_ON_PURPOSE)
    return KerasRunner(in_float64(recipe), wide, "cpu")


def _with_float64(config: Any) -> Any:  # noqa: ANN401 - it is JSON
    """Return a Keras configuration whose dtypes and dtype policies are float64."""
    if isinstance(config, list):
        return [_with_float64(each) for each in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return config | {"config": {**config["config"], "name": "float64"}}
    return {
        key: "float64" if key == "dtype" and value == "float32" else _with_float64(value)
        for key, value in config.items()
    }
