"""Keras 3 models, on TensorFlow."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

import numpy as np

from tasks.domain.artifact import ModelSignature, TensorSpec
from tasks.domain.errors import ConfigurationError, SignatureMismatchError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from keras import KerasTensor, Model
    from numpy.typing import NDArray
    from tensorflow import Tensor
    from tensorflow.types.experimental import ConcreteFunction

    from tasks.domain.recipe import Recipe
    from tasks.runners import Device

MODEL_FILE = "model.keras"


def import_keras() -> ModuleType:
    """Import Keras on its TensorFlow backend, whatever this machine's ``keras.json`` says."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    return importlib.import_module("keras")


def load_model(path: Path) -> Model:
    """Load a ``.keras`` or ``.h5`` file; code inside it is refused.

    Raises:
        VerificationError: Keras cannot read it.
    """
    keras = import_keras()
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        message = f"{path.name}: Keras cannot load it: {type(error).__name__}: {str(error)[:500]}"
        raise VerificationError(message) from error


def check_signature(model: Model, recipe: Recipe) -> ModelSignature | None:
    """Return the model's own inputs and outputs under the recipe's names.

    Inputs and outputs are matched by name where all names agree, else by position. ``None``
    for a subclassed model, which does not say what it takes.

    Raises:
        SignatureMismatchError: Number, type or a fixed size differs from the recipe's.
    """
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        return None
    wanted = recipe.signature.plain
    return ModelSignature(
        inputs=_matched(recipe, "inputs", wanted.inputs, _ordered(inputs, wanted.inputs)),
        outputs=_matched(recipe, "outputs", wanted.outputs, _ordered(outputs, wanted.outputs)),
    )


def _ordered(tensors: Sequence[KerasTensor], specs: Sequence[TensorSpec]) -> list[KerasTensor]:
    by_name = {each.name: each for each in tensors}
    if by_name.keys() == {each.name for each in specs}:
        return [by_name[each.name] for each in specs]
    return list(tensors)


def _matched(
    recipe: Recipe, side: str, specs: Sequence[TensorSpec], tensors: Sequence[KerasTensor]
) -> tuple[TensorSpec, ...]:
    found = tuple(
        TensorSpec(
            name=specs[i].name if i < len(specs) else f"tensor_{i}",
            dtype=str(tensor.dtype),
            shape=_dims(tensor.shape, specs[i].shape if i < len(specs) else ()),
        )
        for i, tensor in enumerate(tensors)
    )
    if len(found) != len(specs) or not all(map(_fits, found, specs)):
        message = (
            f"{recipe.name}: signature.{side}: the recipe contradicts the model "
            f"(expected {', '.join(map(str, specs))}; got {', '.join(map(str, found))}). "
            "Correct the recipe."
        )
        raise SignatureMismatchError(message)
    return found


def _dims(shape: Sequence[int | None], wanted: Sequence[int | str]) -> tuple[int | str, ...]:
    """Name the model's free axes as the recipe does, or by their position."""
    dims = [dim if isinstance(dim, str) else f"dim{axis}" for axis, dim in enumerate(wanted)]
    return tuple(
        size or (dims[axis] if axis < len(dims) else f"dim{axis}")
        for axis, size in enumerate(shape)
    )


def _fits(found: TensorSpec, wanted: TensorSpec) -> bool:
    return (
        found.dtype == wanted.dtype
        and len(found.shape) == len(wanted.shape)
        and all(
            isinstance(got, str) or got == want
            for got, want in zip(found.shape, wanted.shape, strict=True)
        )
    )


def as_function(model: Model, recipe: Recipe) -> ConcreteFunction:
    """Return the model in inference mode as one concrete ``tf.function``.

    Its inputs and outputs are flat and come in the recipe's order, so Functional, Sequential
    and subclassed models are all alike to its caller.

    Raises:
        SignatureMismatchError: The model contradicts the recipe, or refuses its shapes.
    """
    keras = import_keras()
    import tensorflow as tf

    check_signature(model, recipe)
    specs = [
        tf.TensorSpec(
            [None if isinstance(dim, str) else dim for dim in spec.shape], spec.dtype, spec.name
        )
        for spec in recipe.signature.inputs
    ]

    @tf.function(input_signature=specs, autograph=False)  # type: ignore[untyped-decorator]
    def answer(*tensors: Tensor) -> list[Tensor]:
        outputs = keras.tree.flatten(_call(model, recipe, tensors))
        outputs = [outputs[i] for i in _output_order(model, recipe, len(outputs))]
        # one tensor each, even where a model returns the same twice, or an input
        return [tf.identity(each) for each in outputs]

    try:
        return answer.get_concrete_function()
    except (ValueError, TypeError) as error:
        message = (
            f"{recipe.name}: signature: the model refuses the recipe's inputs or outputs "
            f"({recipe.signature.plain}): {str(error)[:500]}. Correct the recipe."
        )
        raise SignatureMismatchError(message) from error


def _call(model: Model, recipe: Recipe, tensors: Sequence[Tensor]) -> object:
    keras = import_keras()
    if not getattr(model, "inputs", None):
        return model(tensors[0] if len(tensors) == 1 else list(tensors), training=False)
    specs = recipe.signature.plain.inputs
    by_input = {
        id(each): tensor
        for each, tensor in zip(_ordered(model.inputs, specs), tensors, strict=True)
    }
    flat = [by_input[id(each)] for each in model.inputs]
    structure = getattr(model, "input", None)  # a Sequential model has none
    packed = keras.tree.pack_sequence_as(structure, flat) if structure is not None else flat[0]
    return model(packed, training=False)


def _output_order(model: Model, recipe: Recipe, count: int) -> list[int]:
    specs = recipe.signature.plain.outputs
    if count != len(specs):
        raise ValueError(f"the model returns {count} tensors, not {len(specs)}")
    if not getattr(model, "outputs", None):
        return list(range(count))
    position = {id(each): i for i, each in enumerate(model.outputs)}
    return [position[id(each)] for each in _ordered(model.outputs, specs)]


class KerasRunner:
    """A Keras model in inference mode."""

    def __init__(self, recipe: Recipe, model: Model, device: Device) -> None:
        keras = import_keras()
        import tensorflow as tf

        if device == "cuda" and not tf.config.list_physical_devices("GPU"):
            message = (
                f"{recipe.name}: device: TensorFlow sees no GPU (expected cuda, got cpu alone). "
                "Run on a GPU worker, or say 'device: cpu'."
            )
            raise ConfigurationError(message)
        # TensorFlow's default on recent GPUs keeps 10 bits of a float32's 23
        tf.config.experimental.enable_tensor_float_32_execution(device == "cpu")
        self._recipe = recipe
        self._signature = check_signature(model, recipe)
        self._function = as_function(model, recipe)
        self._model = model  # keeps the variables alive
        self._device = "/gpu:0" if device == "cuda" else "/cpu:0"
        where = "cuda (TF32 off)" if device == "cuda" else device
        self._runtime = f"keras {keras.__version__} tensorflow {tf.__version__} {where}"

    @classmethod
    def load(cls, recipe: Recipe, folder: Path, device: Device) -> KerasRunner:
        """Load ``model.keras`` from ``folder``.

        Raises:
            VerificationError: Keras cannot read the file.
            SignatureMismatchError: The model contradicts the recipe.
            ConfigurationError: ``device`` is not there.
        """
        return cls(recipe, load_model(folder / MODEL_FILE), device)

    @property
    def runtime(self) -> str:
        """Versions of Keras and TensorFlow, and the device."""
        return self._runtime

    def signature(self) -> ModelSignature | None:
        """Return what the model declares; ``None`` for a subclassed model."""
        return self._signature

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Answer one batch; arrays by the recipe's names, first axis the rows."""
        import tensorflow as tf

        with tf.device(self._device):
            tensors = [
                tf.constant(inputs[spec.name].astype(object))
                if spec.dtype == "string"
                else tf.constant(inputs[spec.name], spec.dtype)
                for spec in self._recipe.signature.inputs
            ]
            answers = self._function(*tensors)
        names = [each.name for each in self._recipe.signature.outputs]
        return {name: _plain(each) for name, each in zip(names, answers, strict=True)}


def _plain(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.numpy()
    return np.char.decode(array.astype(np.bytes_), "utf-8") if array.dtype == object else array
