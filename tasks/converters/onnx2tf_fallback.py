"""ONNX to SavedModel by onnx2tf, for graphs that onnx-tf cannot express.

onnx2tf pins versions of everything, which fit nothing else here, but it runs with ours. So
``requirements/onnx2tf.txt`` is installed into a folder of its own, which stands last on
``sys.path`` here and nowhere else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ExportError
from tasks.isolation import Family

if TYPE_CHECKING:
    from tasks.domain.artifact import TensorSpec

FOLDER = Path(sys.prefix) / "onnx2tf"

CONVERTER = Converter(
    name="onnx2tf",
    takes=ModelFormat.ONNX,
    makes=ModelFormat.SAVED_MODEL,
    family=Family.TENSORFLOW_LEGACY,
    rank=30,
    summary="onnx2tf 1.29, saved by us with the ONNX model's own layout",
    tools=("onnx2tf", "onnx-graphsurgeon", "sng4onnx"),
    code=("tasks.onnxtf",),
    tools_folder=FOLDER,
)

INSTALL = (
    "python -m pip install --no-deps --require-hashes --target .venv/onnx2tf "
    "-r requirements/onnx2tf.txt"
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Convert ``model.onnx`` into a SavedModel of the recipe's layout and names.

    Raises:
        ExportError: onnx2tf is not installed, or it cannot express the graph either.
    """
    onnx2tf = _import_onnx2tf()
    signature = request.recipe.signature
    with tempfile.TemporaryDirectory() as scratch:
        try:
            model = onnx2tf.convert(
                input_onnx_file_path=str(request.source / "model.onnx"),
                output_folder_path=scratch,
                # its own saving writes the weights as JSON, which takes minutes and gigabytes
                disable_model_save=True,
                not_use_onnxsim=True,
                non_verbose=True,
                keep_shape_absolutely_input_names=[each.name for each in signature.inputs],
            )
        except SystemExit as error:  # its way to say that it failed
            raise ExportError(
                f"onnx2tf: gave up on the graph (exit code {error.code}); its log says why."
            ) from error
    _save(model, request)
    return ConvertReply(notes=("converted by onnx2tf, since onnx-tf could not",))


def _import_onnx2tf() -> Any:  # noqa: ANN401 - no stubs
    if not (FOLDER / "onnx2tf").is_dir():
        raise ExportError(
            f"onnx2tf: not installed (expected it in {FOLDER}). Run '{INSTALL}', or leave "
            "'onnx2tf' out of converters.saved_model."
        )
    from tasks.onnxtf import compat

    compat.install()
    if "ai_edge_litert" not in sys.modules:
        # imported at its top, and used only for comparing TFLite files, which are not made
        interpreter = ModuleType("ai_edge_litert.interpreter")
        interpreter.Interpreter = None  # type: ignore[attr-defined]
        sys.modules["ai_edge_litert"] = ModuleType("ai_edge_litert")
        sys.modules["ai_edge_litert.interpreter"] = interpreter
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    import onnx2tf

    return onnx2tf


def _save(model: Any, request: ConvertRequest) -> None:  # noqa: ANN401 - a Keras 2 model
    import tensorflow as tf

    signature = request.recipe.signature
    names = [tensor.name.split(":")[0] for tensor in model.inputs]
    if set(names) != {spec.name for spec in signature.inputs}:
        raise ExportError(f"onnx2tf: renamed the inputs ({', '.join(names)}). Rename the model's.")
    specs = {
        spec.name: tf.TensorSpec(
            [None if isinstance(dim, str) else dim for dim in spec.shape], spec.dtype, spec.name
        )
        for spec in signature.inputs
    }

    def answer(**inputs: Any) -> dict[str, Any]:  # noqa: ANN401 - tensors
        values = model([inputs[name] for name in names], training=False)
        values = values if isinstance(values, list) else [values]
        pairs = zip(signature.outputs, values, strict=True)
        return {spec.name: _laid_out(value, spec) for spec, value in pairs}

    module = tf.Module()
    module.weights = list(model.weights)
    module.answer = tf.function(answer, autograph=False)
    concrete = module.answer.get_concrete_function(**specs)
    tf.saved_model.save(module, str(request.folder), signatures={"serving_default": concrete})


def _laid_out(tensor: Any, spec: TensorSpec) -> Any:  # noqa: ANN401 - tensors
    """Turn an output with the channels last, as onnx2tf likes them, to the declared layout."""
    import tensorflow as tf

    wanted = [None if isinstance(dim, str) else dim for dim in spec.shape]
    rank = len(wanted)
    turned = tensor
    if rank > 2 and not tensor.shape.is_compatible_with(wanted):  # noqa: PLR2004 - batch, features
        turned = tf.transpose(tensor, [0, rank - 1, *range(1, rank - 1)])
    if not turned.shape.is_compatible_with(wanted):
        raise ExportError(
            f"onnx2tf: output '{spec.name}' has another shape (expected {wanted}, got "
            f"{tensor.shape.as_list()})."
        )
    return tf.ensure_shape(tf.identity(tf.cast(turned, spec.dtype)), wanted)
