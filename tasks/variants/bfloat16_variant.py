"""A model whose weights are stored in bfloat16 and cast to float32 where they are read.

ONNX Runtime 1.32 has no CPU kernel in bfloat16 for Conv, MatMul, Gemm, Add, Relu, Softmax and
most others, so that a model which computes in it would load nowhere but on some GPUs. Cast it
has: at load it turns the weights back into float32, once, and runs as fast as the parent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.domain.errors import ExportError
from tasks.runners.onnxruntime_runner import MODEL
from tasks.variants.editing import changing_weights, kept, refuse_overflow, write

if TYPE_CHECKING:
    from tasks.domain.variants import Bfloat16
    from tasks.steps.onnx_file import Proto
    from tasks.variants import VariantRequest

_LARGEST = 3.3895313892515355e38
"""The largest finite bfloat16, (2 - 2**-7) * 2**127."""
_FIRST_OPSET = 13
"""Cast knows bfloat16 since then. Source: onnx/docs/Changelog.md."""
_FEWEST = 64
"""Weights with fewer elements stay: a Cast takes more bytes than it saves."""


def make_bfloat16(request: VariantRequest, spec: Bfloat16) -> tuple[str, ...]:
    """Store the weights in bfloat16, rounded to nearest.

    Raises:
        ExportError: A weight overflows, no weight is large enough, the opset is too old, or
            ``keep_float32`` names what is not there.
    """
    import onnx

    where = f"{request.recipe.name}: bfloat16"
    model = onnx.load(request.source / MODEL)
    _check_opset(where, model)
    stay = kept(where, model, spec.keep_float32)
    read_as_is = {name for node in model.graph.node if stay.has(node) for name in node.input}
    declared = {each.name for each in (*model.graph.input, *model.graph.output)}
    weights = [
        (name, values)
        for name, values in changing_weights(model, stay)
        if values.size >= _FEWEST and name not in declared | read_as_is
    ]
    if not weights:
        message = f"{where}: no float32 weight of {_FEWEST} elements or more. Leave it out."
        raise ExportError(message)
    refuse_overflow(where, weights, "bfloat16", _LARGEST)
    _store(model, dict(weights))
    write(model, request.scratch, request.folder)
    return ("weights are stored in bfloat16 and cast to float32 at load; arithmetic is float32",)


def _check_opset(where: str, model: Proto) -> None:
    opset = max(each.version for each in model.opset_import if each.domain in {"", "ai.onnx"})
    if opset < _FIRST_OPSET:
        message = (
            f"{where}: opset {opset} casts no bfloat16 (expected {_FIRST_OPSET} or later). "
            "Raise the recipe's opset."
        )
        raise ExportError(message)


def _store(model: Proto, weights: dict[str, Any]) -> None:
    import ml_dtypes
    from onnx import TensorProto, helper

    taken = {each.name for each in model.graph.initializer}
    casts = []
    for tensor in model.graph.initializer:
        if tensor.name not in weights:
            continue
        values = np.asarray(weights[tensor.name]).astype(ml_dtypes.bfloat16)
        name, stored = tensor.name, f"{tensor.name}_bfloat16"
        while stored in taken:
            stored += "_"
        dims = list(tensor.dims)
        tensor.Clear()
        tensor.name, tensor.data_type, tensor.raw_data = (
            stored, TensorProto.BFLOAT16, values.tobytes(),
        )  # fmt: skip
        tensor.dims.extend(dims)
        cast = helper.make_node("Cast", [stored], [name], f"{stored}_cast", to=TensorProto.FLOAT)
        casts.append(cast)
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *rest])
