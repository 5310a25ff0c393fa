"""A model in float16, by ONNX Runtime's own converter; inputs and outputs keep their dtypes.

ONNX Runtime on a CPU has few float16 kernels and casts to float32 around the others, so that
there the variant is smaller and not faster; GPUs compute in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.variants.editing import MODEL, changing_weights, kept, refuse_overflow, write

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
        ExportError: A weight overflows, or ``keep_float32`` names what is not there.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    where, path = f"{request.recipe.name}: float16", request.source / MODEL
    model = onnx.load(path)
    stay = kept(where, model, spec.keep_float32)
    blocked = stay._replace(operators=stay.operators | set(DEFAULT_OP_BLOCK_LIST))
    weights = changing_weights(model, blocked)
    refuse_overflow(where, weights, "float16", _LARGEST)
    notes = _notes(weights)
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
    write(converted, request.scratch, request.folder)
    return notes


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
