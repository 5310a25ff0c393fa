"""Small Keras networks, built, converted and run inside a child process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.arrays import load_arrays, save_arrays
from tasks.converters import ConvertReply, ConvertRequest, tf2onnx_keras
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.runners.keras_runner import KerasRunner, as_function, import_keras, load_model
from tasks.sources.keras_applications import randomise
from tasks.tf2onnx_lean.convert import convert_function

if TYPE_CHECKING:
    from keras import Model


class NetRequest(Value):
    """Which network to build."""

    net: str
    seed: int = 0
    folder: Path


class SaveAs(Value):
    """Which Keras file to save again, and as what."""

    source: Path
    target: Path


class RunRequest(Value):
    """Which model answers which arrays."""

    recipe: Recipe
    folder: Path
    inputs: Path
    answers: Path


class Done(Value):
    """Nothing to say, or what the runner says of the model."""

    text: str = ""


def build_net(request: NetRequest) -> Done:
    """Save a network with random weights as ``model.keras``."""
    keras = import_keras()
    _subclassed()
    keras.utils.set_random_seed(request.seed)
    model = _NETS[request.net](keras)
    randomise(model, request.seed)
    if request.net == "equal":
        first, second = (model.get_layer(name) for name in ("first", "second"))
        second.set_weights(first.get_weights())
    model.save(request.folder / "model.keras")
    return Done()


def save_as(request: SaveAs) -> Done:
    """Save a model again, in the format that the target's ending stands for."""
    link = request.target.with_name("to-load.keras")
    link.symlink_to(request.source)
    load_model(link).save(request.target)
    return Done()


def save_published_weights(request: NetRequest) -> Done:
    """Save a small application as ``model.keras``, and its weights as publishers keep them.

    ``keras.applications`` are published in the format that HDF5 files of weights had before
    Keras 3; it still reads them, and ``save_weights`` no longer writes them.
    """
    keras = import_keras()
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    build = getattr(keras.applications, request.net)
    keras.backend.clear_session()
    model = build(weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None)
    randomise(model, request.seed)
    model.save(request.folder / "model.keras")
    with h5py.File(request.folder / "weights.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return Done()


def convert_net(request: ConvertRequest) -> ConvertReply:
    """Convert by ``tf2onnx-keras``, with the subclassed network known to Keras."""
    _subclassed()
    return tf2onnx_keras.convert(request)


def convert_with_external_data(request: ConvertRequest) -> ConvertReply:
    """Convert as if one file could hold no more than a thousand bytes of weights."""
    model = load_model(request.source / "model.keras")
    function = as_function(model, request.recipe)
    path = request.folder / "model.onnx"
    notes = convert_function(model, function, request.recipe, path, largest_file=1_000).notes
    return ConvertReply(notes=notes)


def run_net(request: RunRequest) -> Done:
    """Let the Keras runner answer."""
    _subclassed()
    runner = KerasRunner.load(request.recipe, request.folder, "cpu")
    save_arrays(request.answers, runner.run(load_arrays(request.inputs)))
    return Done(text=str(runner.signature()))


def save_module(request: NetRequest) -> Done:
    """Save a SavedModel of one input and two outputs, with a large variable and constant."""
    import tensorflow as tf

    random = np.random.default_rng(request.seed)
    kernel = tf.Variable(random.normal(size=(64, 80)).astype(np.float32))
    table = random.normal(size=(80, 4_000)).astype(np.float32)
    module = tf.Module()
    module.kernel = kernel

    @tf.function(input_signature=[tf.TensorSpec((None, 64), tf.float32, "x")])  # type: ignore[untyped-decorator]
    def answer(x: Any) -> dict[str, Any]:
        hidden = tf.nn.relu(x @ kernel)
        return {"wide": hidden @ tf.constant(table), "narrow": tf.reduce_sum(hidden, -1)}

    tf.saved_model.save(module, str(request.folder), {"serving_default": answer})
    return Done()


def run_module(request: RunRequest) -> Done:
    """Let TensorFlow answer by the SavedModel's own signature."""
    import tensorflow as tf

    model = tf.saved_model.load(str(request.folder))
    inputs = {name: tf.constant(each) for name, each in load_arrays(request.inputs).items()}
    answers = model.signatures["serving_default"](**inputs)
    save_arrays(request.answers, {name: each.numpy() for name, each in answers.items()})
    return Done()


def _cnn(keras: Any) -> Model:
    layers = keras.layers
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(16, 3, padding="same")(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Conv2D(32, 3, strides=2, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2DTranspose(20, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(5)(layers.Dropout(0.5)(x)))


def _sequential(keras: Any) -> Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((20,)),
            layers.Dense(256, activation="gelu"),
            layers.BatchNormalization(),
            layers.LayerNormalization(),
            layers.Dense(5),
        ]
    )


def _subclassed() -> Any:
    keras = import_keras()

    @keras.saving.register_keras_serializable("tests")
    class Residual(keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.first = keras.layers.Dense(80, activation="relu")
            self.second = keras.layers.Dense(64)

        def call(self, x: Any, *, training: bool = False) -> Any:
            return x + self.second(self.first(x), training=training)

    return Residual


def _residual(keras: Any) -> Model:
    model = _subclassed()()
    model(keras.ops.zeros((2, 64)))
    return model


def _multi(keras: Any) -> Model:
    layers = keras.layers
    image, facts = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="facts")
    x = layers.Concatenate()([layers.Flatten()(image), facts])
    x = layers.Dense(64, activation="tanh")(x)
    return keras.Model([image, facts], [layers.Dense(3)(x), layers.Dense(2)(x)])


def _pair(keras: Any, *, one_layer: bool) -> Model:
    """Two branches of equally shaped weights, or one layer used by both."""
    x = keras.Input((64,))
    first = keras.layers.Dense(64, name="first", activation="relu")
    second = first if one_layer else keras.layers.Dense(64, name="second", activation="relu")
    return keras.Model(x, keras.layers.Concatenate()([first(x), second(first(x))]))


def _half(keras: Any) -> Model:
    x = keras.Input((64,))
    dense = keras.layers.Dense(64, dtype="mixed_float16")
    return keras.Model(x, keras.layers.Dense(3, dtype="float32")(dense(x)))


def _words(keras: Any) -> Model:
    layers = keras.layers
    words = keras.Input((6,), dtype="int32")
    x = layers.LSTM(32)(layers.Embedding(500, 16)(words))
    return keras.Model(words, layers.Dense(3)(x))


_NETS = {
    "cnn": _cnn,
    "sequential": _sequential,
    "subclassed": _residual,
    "multi": _multi,
    "distinct": lambda keras: _pair(keras, one_layer=False),
    "equal": lambda keras: _pair(keras, one_layer=False),
    "shared": lambda keras: _pair(keras, one_layer=True),
    "half": _half,
    "words": _words,
}
