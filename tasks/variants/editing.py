"""What the makers of variants share: which nodes stay, which weights change, how a file is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.converters.onnx_weights import write_model
from tasks.domain.errors import ExportError
from tasks.runners.onnxruntime_runner import MODEL
from tasks.steps.ir_version import LowerIrRequest, lower_ir_version
from tasks.steps.onnx_file import Proto, nodes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray


class Kept(NamedTuple):
    """What a recipe's ``keep_float32`` names, told apart."""

    operators: frozenset[str]
    nodes: frozenset[str]

    def has(self, node: Proto) -> bool:
        """Whether ``node`` stays as it is."""
        return node.op_type in self.operators or node.name in self.nodes


def kept(where: str, model: Proto, names: Iterable[str]) -> Kept:
    """Find what ``keep_float32`` names in the model.

    Raises:
        ExportError: There is no such operator or node.
    """
    there = list(nodes(model))
    operators, named = {each.op_type for each in there}, {each.name for each in there}
    if unknown := [name for name in names if name not in operators | named]:
        message = (
            f"{where}: keep_float32: the model has no operator or node '{unknown[0]}' (its "
            f"operators: {', '.join(sorted(operators))}). Name one of them, or a node."
        )
        raise ExportError(message)
    return Kept(frozenset(operators & set(names)), frozenset(named & set(names)))


def changing_weights(model: Proto, stay: Kept) -> list[tuple[str, NDArray[np.float32]]]:
    """Return name and content of each float32 weight that a node outside ``stay`` reads."""
    from onnx import TensorProto, numpy_helper

    read = {name for node in nodes(model) if not stay.has(node) for name in node.input}
    return [
        (each.name, numpy_helper.to_array(each))
        for each in model.graph.initializer
        if each.data_type == TensorProto.FLOAT and each.name in read
    ]


def refuse_overflow(where: str, weights: Iterable[tuple[str, NDArray[np.float32]]],
                    dtype: str, largest: float) -> None:  # fmt: skip
    """Refuse weights that the smaller dtype can only hold as infinity.

    Raises:
        ExportError: A finite weight is beyond ``largest``.
    """
    for name, values in weights:
        finite = values[np.isfinite(values)]
        worst = float(np.abs(finite).max(initial=0.0))
        if worst > largest:
            message = (
                f"{where}: weight '{name}' holds {worst:.6g}, beyond the largest {dtype} "
                f"({largest:.6g}). Name the node that reads it in 'keep_float32'."
            )
            raise ExportError(message)


def write(model: Proto, scratch: Path, folder: Path) -> None:
    """Write the model, asking for no operator set that it does not use and no newer reader."""
    used = {node.domain or "" for node in nodes(model)} | {""}
    imports = [each for each in model.opset_import if (each.domain or "") in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    _sort(model.graph)
    write_model(model, scratch, folder)
    lower_ir_version(LowerIrRequest(model=folder / MODEL))


def _sort(graph: Proto) -> None:
    """Put each node after those that it reads of, else in the order in which they stand."""
    waiting = list(graph.node)
    made = {name for node in waiting for name in node.output}
    ready = {""}
    ordered: list[Proto] = []
    while waiting:
        later = []
        for node in waiting:
            if all(name in ready or name not in made for name in _read(node)):
                ordered.append(node)
                ready.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            return  # a cycle, which verification has the words for
        waiting = later
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def _read(node: Proto) -> list[str]:
    """Return what a node reads, from inside its sub-graphs too."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names += [name for inner in graph.node for name in _read(inner)]
    return names
