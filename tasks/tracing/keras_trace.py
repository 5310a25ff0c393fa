"""Every operation of a Keras model on a few rows, under the name of its layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.tracing.recording import Trace, TracedTensor, rows_of, write_trace
from tasks.tracing.torch_trace import TraceSourceRequest  # noqa: TC001 - the child reads it

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FINISHING = frozenset({"BiasAdd", "Add", "AddV2", "Mul", "Sub", "FusedBatchNormV3"})
_NO_ARRAYS = ("string", "resource", "variant")


def trace_keras(request: TraceSourceRequest) -> Trace:
    """Write what each TensorFlow operation of the model answers, and the weights after them.

    Raises:
        ReleaseError: The model does not load, or refuses the recipe's inputs.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    from tasks.runners.keras_runner import MODEL_FILE, as_function, load_model

    model = load_model(request.model / MODEL_FILE)
    frozen = convert_variables_to_constants_v2(as_function(model, request.recipe))
    tensors = [
        tensor
        for operation in frozen.graph.get_operations()
        for tensor in operation.outputs
        if tensor.dtype.name not in _NO_ARRAYS and operation.type not in {"Const", "NoOp"}
        if not _is_half_done(tensor)
    ]
    inputs = rows_of(request.probe, request.rows)
    feeds = list(frozen.inputs)
    pruned = frozen.prune(feeds, tensors)
    answers = pruned(
        *(tf.constant(inputs[spec.name], spec.dtype) for spec in request.recipe.signature.inputs)
    )
    layers = _layers(model)
    found: list[tuple[TracedTensor, NDArray[Any]]] = [
        (TracedTensor(name=tensor.name, layer=_layer(tensor.name, layers)), answer.numpy())
        for tensor, answer in zip(tensors, answers, strict=True)
    ]
    found += [
        (TracedTensor(name=f"parameter {w.path}", layer=w.path.rpartition("/")[0]), w.numpy())
        for w in model.weights
    ]
    return write_trace(request.folder, found)


def _is_half_done(tensor: Any) -> bool:  # noqa: ANN401
    """Whether the next operation only adds or scales by a weight, as converters fuse it.

    A dropped bias would else be taken for the right answer of the operation before it.
    """
    readers = tensor.consumers()
    if len(readers) != 1 or readers[0].type not in _FINISHING:
        return False
    others = [each for each in readers[0].inputs if each is not tensor]
    return bool(others) and all(_is_constant(each.op) for each in others)


def _is_constant(operation: Any) -> bool:  # noqa: ANN401
    if operation.type == "Const":
        return True
    return bool(operation.inputs) and all(_is_constant(each.op) for each in operation.inputs)


def _layers(model: Any) -> set[str]:  # noqa: ANN401 - keras.Model
    return {layer.name for layer in model._flatten_layers(include_self=False)}  # noqa: SLF001


def _layer(operation: str, layers: set[str]) -> str:
    """Return the innermost layer on an operation's path."""
    return next((part for part in reversed(operation.split("/")) if part in layers), "")
