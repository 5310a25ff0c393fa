"""A model in float16, by ONNX Runtime's own converter; inputs and outputs keep their dtypes.

ONNX Runtime on a CPU has few float16 kernels and casts to float32 around the others, so that
there the variant is smaller and not faster; GPUs compute in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.domain.errors import ExportError
from tasks.runners.onnxruntime_runner import MODEL
from tasks.steps.onnx_file import nodes
from tasks.variants.editing import changing_weights, kept, refuse_overflow, write
from tasks.variants.ranges import peak_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.domain.variants import Float16
    from tasks.steps.onnx_file import Proto
    from tasks.variants import VariantRequest

_LARGEST, _SMALLEST_NORMAL, _SMALLEST = 65504.0, 2.0**-14, 5.96e-8
"""Source: IEEE 754-2019, binary16. The converter turns what is smaller than the last into it."""
_FEW = 0.001
"""A share of subnormal weights that is worth a note."""


def make_float16(request: VariantRequest, spec: Float16) -> tuple[str, ...]:
    """Convert, and return what is to be told of the weights.

    Raises:
        ExportError: A weight or an activation overflows, or ``keep_float32`` names what is not
            there.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    where, path = f"{request.recipe.name}: float16", request.source / MODEL
    model = onnx.load(path)
    stay = kept(where, model, spec.keep_float32)
    blocked = stay._replace(operators=stay.operators | set(DEFAULT_OP_BLOCK_LIST))
    weights = changing_weights(model, blocked)
    if not weights:
        message = f"{where}: no float32 weight that could be float16. Leave the variant out."
        raise ExportError(message)
    refuse_overflow(where, weights, "float16", _LARGEST)
    if peak := peak_of(where, request.source, blocked, request.probes, request.scratch):
        message = (
            f"{where}: node '{peak.node}' reaches {peak.magnitude:.6g} on the probe "
            f"'{peak.probe}', which float16 can only hold as infinity (its largest is "
            f"{_LARGEST:g}). Name the node, and those that read it, in 'keep_float32'."
        )
        raise ExportError(message)
    notes = _notes(weights)
    own_casts = [node.output[0] for node in nodes(model) if node.op_type == "Cast"]
    # ONNX infers shapes of what is too large for one protobuf message from the file alone
    apart = _is_apart(path)
    converted: Proto = convert_float_to_float16(
        str(path) if apart else model,
        min_positive_val=_SMALLEST,
        max_finite_val=_LARGEST,
        keep_io_types=True,
        op_block_list=sorted(blocked.operators),
        node_block_list=sorted(blocked.nodes),
    )
    _join_kept(converted, frozenset(own_casts))
    write(converted, request.scratch, request.folder)
    return notes


def _join_kept(model: Proto, own_casts: frozenset[str]) -> None:
    """Let float32 pass between nodes that are kept, where the converter casts it there and back.

    A value that is kept in float32 because it overflows would become infinite on the way.

    Args:
        model: As the converter left it.
        own_casts: Outputs of the casts that the model had before; they stay.
    """
    from onnx import TensorProto

    graph = model.graph
    wide = {  # what became float16, and what it was
        node.output[0]: node.input[0]
        for node in graph.node
        if _casts_to(node) == TensorProto.FLOAT16 and node.output[0] not in own_casts
    }
    for node in graph.node:
        if _casts_to(node) == TensorProto.FLOAT and node.input[0] in wide:
            node.op_type, node.input[0] = "Identity", wide[node.input[0]]
            del node.attribute[:]
    read = {name for node in nodes(model) for name in node.input}
    dead = wide.keys() - read
    for node in [each for each in graph.node if each.output and each.output[0] in dead]:
        graph.node.remove(node)


def _casts_to(node: Proto) -> int | None:
    if node.op_type != "Cast":
        return None
    return next((each.i for each in node.attribute if each.name == "to"), None)


def _is_apart(path: Path) -> bool:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return any(each.external_data for each in model.graph.initializer)


def _notes(weights: Iterable[tuple[str, NDArray[np.float32]]]) -> tuple[str, ...]:
    total = subnormal = lost = 0
    for _, values in weights:
        sizes = np.abs(values)
        total += values.size
        subnormal += int(np.count_nonzero((sizes < _SMALLEST_NORMAL) & (sizes > 0)))
        lost += int(np.count_nonzero((sizes < _SMALLEST) & (sizes > 0)))
    if subnormal <= _FEW * total:
        return ()
    note = (
        f"{subnormal:,} of {total:,} weights are subnormal in float16 (below 6.1e-05) and keep "
        f"fewer digits; {lost:,} of them are below its smallest number"
    )
    return (note,)
