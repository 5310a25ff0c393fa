"""SavedModel to ONNX by tf2onnx, in a fraction of its usual memory (see ``tasks.tf2onnx_lean``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ExportError, SignatureMismatchError
from tasks.domain.sources import SavedModelFolder
from tasks.isolation import Family
from tasks.tf2onnx_lean.convert import OPSETS, PASSES, check_opset, convert_function

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tensorflow import Tensor
    from tensorflow.python.trackable.base import Trackable
    from tensorflow.types.experimental import ConcreteFunction

    from tasks.domain.artifact import TensorSpec
    from tasks.domain.recipe import Recipe

CONVERTER = Converter(
    name="tf2onnx-saved-model",
    takes=ModelFormat.SAVED_MODEL,
    makes=ModelFormat.ONNX,
    family=Family.TENSORFLOW_LEGACY,
    rank=10,
    summary="tf2onnx, with large weights kept out of its graph",
    opsets=OPSETS,
    tools=("tf2onnx",),
    code=("tasks.tf2onnx_lean",),
    passes=PASSES,
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Convert the signature that the recipe names.

    Raises:
        ExportError: The SavedModel does not load, or tf2onnx cannot express it.
        SignatureMismatchError: Its signature contradicts the recipe.
    """
    check_opset(request.recipe)
    model, signature = _load(request)
    function = _as_function(signature, request.recipe)
    path = request.folder / "model.onnx"
    passes = CONVERTER.chosen(request)
    converted = convert_function(model, function, request.recipe, path, passes=passes)
    return ConvertReply(notes=converted.notes, passes=converted.passes)


def _load(request: ConvertRequest) -> tuple[Trackable, ConcreteFunction]:
    import tensorflow as tf
    import tf_keras  # noqa: F401 - revives what older Kerases saved

    recipe = request.recipe
    source = recipe.source
    key = source.signature if isinstance(source, SavedModelFolder) else "serving_default"
    try:
        model = tf.saved_model.load(str(request.source))
    except Exception as error:
        message = (
            f"{recipe.name}: TensorFlow cannot load the SavedModel: "
            f"{type(error).__name__}: {str(error)[:500]}"
        )
        raise ExportError(message) from error
    if key not in model.signatures:
        message = (
            f"{recipe.name}: source.signature: the SavedModel has no '{key}' "
            f"(expected one of: {', '.join(model.signatures) or 'none'}). Correct the recipe."
        )
        raise SignatureMismatchError(message)
    return model, model.signatures[key]


def _as_function(signature: ConcreteFunction, recipe: Recipe) -> ConcreteFunction:
    """Return the signature with flat inputs and outputs in the recipe's order and shapes."""
    import tensorflow as tf

    given = signature.structured_input_signature[1]
    inputs = _keys(recipe, "inputs", recipe.signature.plain.inputs, given)
    outputs = _keys(recipe, "outputs", recipe.signature.plain.outputs, signature.structured_outputs)
    specs = [
        tf.TensorSpec(
            [None if isinstance(dim, str) else dim for dim in spec.shape], spec.dtype, spec.name
        )
        for spec in recipe.signature.inputs
    ]
    for key, spec in zip(inputs, specs, strict=True):
        if given[key].dtype != spec.dtype or not given[key].shape.is_compatible_with(spec.shape):
            message = (
                f"{recipe.name}: signature.inputs: '{spec.name}' contradicts the SavedModel "
                f"(expected {spec}, got {given[key]}). Correct the recipe."
            )
            raise SignatureMismatchError(message)

    @tf.function(input_signature=specs, autograph=False)  # type: ignore[untyped-decorator]
    def answer(*tensors: Tensor) -> list[Tensor]:
        answers = signature(**dict(zip(inputs, tensors, strict=True)))
        return [tf.identity(answers[key]) for key in outputs]

    return answer.get_concrete_function()


def _keys(
    recipe: Recipe, side: str, specs: Sequence[TensorSpec], given: Iterable[str]
) -> tuple[str, ...]:
    """Return the SavedModel's key of each of the recipe's tensors.

    Keys of a signature have no order of their own, so names must agree.
    """
    names, keys = tuple(spec.name for spec in specs), tuple(given)
    if set(names) == set(keys):
        return names
    message = (
        f"{recipe.name}: signature.{side}: the recipe's names are not the SavedModel's "
        f"(expected {', '.join(sorted(keys))}; got {', '.join(names)}). Correct the recipe."
    )
    raise SignatureMismatchError(message)
