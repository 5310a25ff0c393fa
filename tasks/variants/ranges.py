"""How large activations become: what a CPU that computes float16 in float32 would never show.

ONNX Runtime on a CPU casts float16 to float32 before most operators and drops the cast back in
between, so that a value beyond 65504 passes there and becomes infinite on a GPU. So it is looked
for in the float32 model.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.arrays import load_arrays
from tasks.converters.onnx_weights import EXTERNAL_DATA
from tasks.runners.onnxruntime_runner import MODEL, open_session
from tasks.steps.onnx_file import nodes

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.steps.onnx_file import Proto
    from tasks.variants.editing import Kept

_ROWS, _MOST_ROWS = 4, 8
"""Rows of one run, and of one probe."""
_SUFFIX = "__largest"


class Peak(NamedTuple):
    """The largest magnitude that a tensor took."""

    node: str
    probe: str
    magnitude: float


def peak_of(where: str, source: Path, stay: Kept, probes: Path, scratch: Path) -> Peak | None:
    """Return the first tensor, in the graph's order, that goes beyond float16 on any probe.

    Args:
        where: The first words of an error.
        source: Folder of the float32 model.
        stay: Nodes that keep float32; what passes between them alone may be as large as it is.
        probes: Folder of ``<probe>.npz``.
        scratch: Where the model with more outputs is written.
    """
    watched = _write_watched(source, stay, scratch)
    if not watched:
        return None
    session = open_session(where, scratch / MODEL)
    limit = float(np.finfo(np.float16).max)
    found: dict[str, Peak] = {}
    for path in sorted(probes.glob("*.npz")):
        rows = load_arrays(path)
        for start in range(0, min(_MOST_ROWS, len(next(iter(rows.values())))), _ROWS):
            batch = {name: each[start : start + _ROWS] for name, each in rows.items()}
            for name, value in zip(watched, session.run(list(watched), batch), strict=True):
                if limit < value < np.inf:
                    found.setdefault(name, Peak(watched[name], path.stem, float(value)))
    return next((found[name] for name in watched if name in found), None)


def _write_watched(source: Path, stay: Kept, scratch: Path) -> dict[str, str]:
    """Write the model with the largest magnitude of each float32 tensor as a further output.

    Returns:
        By the name of the output, the node whose tensor it is.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(source / MODEL, load_external_data=False)
    watched = {}
    for tensor, node in _watchable(model, stay).items():
        name = f"{tensor}{_SUFFIX}"
        model.graph.node.extend([
            helper.make_node("Abs", [tensor], [f"{name}_abs"]),
            helper.make_node("ReduceMax", [f"{name}_abs"], [name], keepdims=0),
        ])  # fmt: skip
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
        watched[name] = node
    onnx.save(model, scratch / MODEL)
    if (source / EXTERNAL_DATA).is_file():
        # no link: onnx and ONNX Runtime refuse external data that is one, for safety
        shutil.copyfile(source / EXTERNAL_DATA, scratch / EXTERNAL_DATA)
    return watched


def _watchable(model: Proto, stay: Kept) -> dict[str, str]:
    """Return float32 tensors that become float16 somewhere, and the node that makes each."""
    import onnx
    from onnx import TensorProto

    graph = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        each.name
        for each in (*graph.value_info, *graph.output)
        if each.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    narrow = {name for node in nodes(model) if not stay.has(node) for name in node.input}
    return {
        name: node.name or node.op_type
        for node in model.graph.node
        for name in node.output
        if name in floats and (name in narrow or not stay.has(node))
    }
