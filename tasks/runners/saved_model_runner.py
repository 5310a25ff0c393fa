"""TensorFlow SavedModels, by one of their signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tasks.domain.artifact import ModelSignature, TensorSpec
from tasks.domain.errors import ConfigurationError, SignatureMismatchError, VerificationError
from tasks.domain.sources import SavedModelFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.domain.recipe import Recipe
    from tasks.runners import Device

SERVING = "serving_default"


class SavedModelRunner:
    """A SavedModel that was loaded afresh, called as a server would call it."""

    def __init__(self, recipe: Recipe, model: Any, name: str, device: Device) -> None:  # noqa: ANN401 - TensorFlow has no stubs
        self._recipe = recipe
        self._model = model  # the function alone does not keep the variables
        self._function = model.signatures[name]
        self._device = device

    @classmethod
    def load(cls, recipe: Recipe, folder: Path, device: Device) -> Self:
        """Load the SavedModel in ``folder``.

        Its signature is ``serving_default``; where the recipe's source is a SavedModel, the
        one that the source names, if the folder has it.

        Raises:
            VerificationError: TensorFlow cannot load it, or it lacks the signature.
            ConfigurationError: A GPU is asked for and TensorFlow sees none.
        """
        import tensorflow as tf

        if device == "cuda" and not tf.config.list_physical_devices("GPU"):
            raise ConfigurationError(
                f"{recipe.name}: device: TensorFlow sees no GPU (expected one for cuda). "
                "Run it on a worker with a GPU, or say 'device: cpu'."
            )
        # TensorFlow's default on recent GPUs keeps 10 bits of a float32's 23
        tf.config.experimental.enable_tensor_float_32_execution(device == "cpu")
        try:
            with tf.device(_device_name(device)):
                model = tf.saved_model.load(str(folder))
        except Exception as error:
            raise VerificationError(
                f"{recipe.name}: TensorFlow cannot load {folder.name} as a SavedModel: "
                f"{type(error).__name__}: {str(error)[:500]}. Export it again."
            ) from error
        return cls(recipe, model, _signature_name(recipe, list(model.signatures)), device)

    @property
    def runtime(self) -> str:
        """What runs it, such as ``tensorflow 2.21.0 cpu``."""
        import tensorflow as tf

        where = "cuda (TF32 off)" if self._device == "cuda" else self._device
        return f"tensorflow {tf.__version__} {where}"

    def signature(self) -> ModelSignature | None:
        """Return what the SavedModel declares, in the recipe's order; ``None`` without ranks.

        A free axis has the name that the recipe gives it there, or ``dim<axis>``.
        """
        wanted = self._recipe.signature
        inputs = self._function.structured_input_signature[1]
        outputs = self._function.structured_outputs
        if any(each.shape.rank is None for each in (*inputs.values(), *outputs.values())):
            return None
        return ModelSignature(
            inputs=_specs(inputs, wanted.inputs), outputs=_specs(outputs, wanted.outputs)
        )

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Answer one batch.

        Raises:
            SignatureMismatchError: The inputs' or outputs' names are not the SavedModel's.
            VerificationError: TensorFlow cannot run it.
        """
        import tensorflow as tf

        where = f"{self._recipe.name}: SavedModel"
        _same_names(where, "inputs", self._function.structured_input_signature[1], inputs)
        names = [spec.name for spec in self._recipe.signature.outputs]
        if not set(names) <= set(self._function.structured_outputs):
            _same_names(where, "outputs", self._function.structured_outputs, names)
        try:
            with tf.device(_device_name(self._device)):
                given = {name: tf.constant(value) for name, value in inputs.items()}
                answers = self._function(**given)
        except (tf.errors.OpError, TypeError, ValueError) as error:
            raise VerificationError(
                f"{where}: does not run: {type(error).__name__}: {str(error)[:500]}. "
                "Export it with another converter."
            ) from error
        return {name: _as_array(answers[name].numpy()) for name in names}


def _device_name(device: Device) -> str:
    return "/GPU:0" if device == "cuda" else "/CPU:0"


def _signature_name(recipe: Recipe, found: list[str]) -> str:
    wanted = [SERVING]
    if isinstance(recipe.source, SavedModelFolder):
        wanted.insert(0, recipe.source.signature)
    for name in wanted:
        if name in found:
            return name
    raise VerificationError(
        f"{recipe.name}: the SavedModel lacks its signature (expected {wanted[0]}, got "
        f"{', '.join(found) or 'none'}). Name one that it has in source.signature, or export "
        "it again."
    )


def _same_names(where: str, side: str, real: Iterable[str], asked: Iterable[str]) -> None:
    if set(real) != set(asked):
        raise SignatureMismatchError(
            f"{where}: the {side}' names are not the recipe's (expected "
            f"{', '.join(sorted(asked))}, got {', '.join(sorted(real))}). Change the recipe's "
            "signature, or let the converter name them."
        )


def _specs(tensors: Mapping[str, Any], wanted: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    shapes = {spec.name: spec.shape for spec in wanted}
    order = [name for name in shapes if name in tensors]
    order += [name for name in sorted(tensors) if name not in shapes]
    return tuple(
        TensorSpec(
            name=name,
            dtype=tensors[name].dtype.name,
            shape=_dims(tensors[name].shape.as_list(), shapes.get(name, ())),
        )
        for name in order
    )


def _dims(sizes: list[int | None], wanted: tuple[int | str, ...]) -> tuple[int | str, ...]:
    names = dict(enumerate(wanted))

    def name_of(axis: int) -> str:
        name = names.get(axis)
        return name if isinstance(name, str) else f"dim{axis}"

    return tuple(size or name_of(axis) for axis, size in enumerate(sizes))


def _as_array(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return TensorFlow's byte strings as text."""
    if values.dtype != object:
        return values
    return np.char.decode(values.astype(np.bytes_), "utf-8")
