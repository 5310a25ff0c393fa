"""The same model, written otherwise: other names, another order, other notes, other encodings."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, external_data_helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path


def rewritten(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Return an equal model in which nothing that does not matter is as it was."""
    chance = random.Random(seed)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.producer_name, made.producer_version = f"exporter {seed}", str(chance.random())
    made.doc_string = made.graph.name = made.graph.doc_string = f"note {seed}"
    made.metadata_props.add(key="when", value=str(chance.random()))
    kept = {each.name for each in (*made.graph.input, *made.graph.output)}
    _rewrite(made.graph, {}, kept, chance)
    made.opset_import.sort(key=lambda _: chance.random())
    return made


def _rewrite(
    graph: onnx.GraphProto, outer: dict[str, str], kept: set[str], chance: random.Random
) -> None:
    names = dict(outer)
    made = [name for node in graph.node for name in node.output if name]
    for name in (*made, *(each.name for each in graph.initializer)):
        names[name] = name if name in kept else f"t{chance.getrandbits(64):x}"
    order = _another_order(graph, chance)
    nodes = [graph.node[i] for i in order]
    del graph.value_info[:]
    for node in nodes:
        node.name, node.doc_string = f"n{chance.random()}", "a note"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        node.attribute.sort(key=lambda _: chance.random())
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inner = {each.name for each in (*attribute.g.input, *attribute.g.output)}
                _rewrite(attribute.g, names, inner, chance)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    for tensor in graph.initializer:
        tensor.name, tensor.doc_string = names[tensor.name], "a weight"
        if tensor.data_type == TensorProto.FLOAT and chance.random() < 0.5:
            values = numpy_helper.to_array(tensor).ravel().tolist()
            tensor.ClearField("raw_data")
            tensor.float_data[:] = values
    graph.initializer.sort(key=lambda _: chance.random())


def _another_order(graph: onnx.GraphProto, chance: random.Random) -> list[int]:
    """Return a random order in which every node still comes after what it uses."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output}
    needs = [{maker[name] for name in _used(node) if name in maker} for node in graph.node]
    order: list[int] = []
    while len(order) < len(needs):
        ready = [i for i, need in enumerate(needs) if i not in order and need <= set(order)]
        order.append(chance.choice(ready))
    return order


def _used(node: onnx.NodeProto) -> set[str]:
    used = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            used |= {name for inner in attribute.g.node for name in _used(inner)}
            used |= {each.name for each in attribute.g.output}
    return used


def with_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """Write the model to ``folder/model.onnx`` with its weights beside it."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    content = b""
    for tensor in made.graph.initializer:
        raw = numpy_helper.to_array(tensor).tobytes()
        tensor.ClearField("float_data")
        tensor.raw_data = raw
        external_data_helper.set_external_data(
            tensor, "model.onnx.data", offset=len(content), length=len(raw)
        )
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        content += raw
    (folder / "model.onnx.data").write_bytes(content)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
