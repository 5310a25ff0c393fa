"""The tools of a broken exporter: each changes a sound ONNX graph, and names the node it spoilt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    from tasks.domain.diagnosis import Stage

Net: TypeAlias = "onnx.ModelProto"
Rule: TypeAlias = "Callable[[NDArray[Any]], NDArray[Any]]"
Right: TypeAlias = "set[str]"
"""Names of the nodes that a diagnosis may name."""


@dataclass(frozen=True)
class Fault:
    """One planted fault."""

    name: str
    good: str
    """The sound model that it is planted into."""
    stage: Stage
    """After which stage the file has it."""
    plant: Callable[[Net], Right]
    """Spoils the graph; returns the names of the nodes that count as the right ones."""
    wild: str
    """What happened in the wild, with the thread where there is one."""


def label(node: Any) -> str:
    """Return a node's name as a diagnosis gives it."""
    return str(node.name or node.output[0])


def the(net: Net, kind: str, place: int = 0) -> Any:
    """Return one node by its operator, and its place among those of that operator."""
    return [each for each in net.graph.node if each.op_type == kind][place]


# --- weights ------------------------------------------------------------------------------


def stored(net: Net, name: str) -> Any:
    """Return the initializer called ``name``."""
    return next(each for each in net.graph.initializer if each.name == name)


def change(name: str, rule: Rule, net: Net) -> None:
    """Replace one weight by what ``rule`` makes of it."""
    tensor = stored(net, name)
    array = rule(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(np.array(array, order="C"), name))


def at(index: Any, value: Any) -> Rule:
    """Return a rule that changes one place."""

    def rule(array: NDArray[Any]) -> NDArray[Any]:
        array[index] = value(array[index]) if callable(value) else value
        return array

    return rule


def weight(kind: str, place: int, port: int, rule: Rule) -> Callable[[Net], Right]:
    """Change the weight that a node reads at ``port``."""

    def plant(net: Net) -> Right:
        node = the(net, kind, place)
        name = node.input[port]
        change(name, rule, net)
        return {label(each) for each in net.graph.node if name in each.input}

    return plant


def read_another(kind: str, place: int, port: int, other: int) -> Callable[[Net], Right]:
    """Let a node read the weight of another node of its kind, as after a collision of names."""

    def plant(net: Net) -> Right:
        node = the(net, kind, place)
        node.input[port] = the(net, kind, other).input[port]
        return {label(node)}

    return plant


# --- attributes ---------------------------------------------------------------------------


def set_attribute(node: Any, **attributes: Any) -> None:
    """Give a node other attributes."""
    kept = [each for each in node.attribute if each.name not in attributes]
    del node.attribute[:]
    made = [helper.make_attribute(key, value) for key, value in attributes.items()]
    node.attribute.extend([*kept, *made])


def attribute(kind: str, place: int = 0, **attributes: Any) -> Callable[[Net], Right]:
    """Change attributes of a node."""

    def plant(net: Net) -> Right:
        node = the(net, kind, place)
        set_attribute(node, **attributes)
        return {label(node)}

    return plant


def floats(kind: str, name: str, rule: Rule) -> Callable[[Net], Right]:
    """Change a list of numbers that a node holds as an attribute."""

    def plant(net: Net) -> Right:
        node = the(net, kind)
        values = next(each for each in node.attribute if each.name == name).floats
        set_attribute(node, **{name: rule(np.array(values, np.float32)).tolist()})
        return {label(node)}

    return plant


def become(kind: str, place: int, other: str, **attributes: Any) -> Callable[[Net], Right]:
    """Make another operator of a node."""

    def plant(net: Net) -> Right:
        node = the(net, kind, place)
        node.op_type = other
        del node.attribute[:]
        set_attribute(node, **attributes)
        return {label(node)}

    return plant


# --- nodes --------------------------------------------------------------------------------


def constants(net: Net, *values: Any) -> list[str]:
    """Store values and return their names."""
    start = len(net.graph.initializer)
    names = [f"planted_{start + i}" for i in range(len(values))]
    net.graph.initializer.extend(map(numpy_helper.from_array, map(np.asarray, values), names))
    return names


def behind(net: Net, tensor: str, kind: str, *more: Any, **attributes: Any) -> str:
    """Put an operator in front of every reader of ``tensor``; ``more`` are its other inputs."""
    moved = f"{tensor}_moved"
    for each in net.graph.node:
        each.input[:] = [moved if name == tensor else name for name in each.input]
    names = constants(net, *more)
    made = helper.make_node(kind, [tensor, *names], [moved], f"planted_{kind}", **attributes)
    places = [i for i, each in enumerate(net.graph.node) if tensor in each.output]
    net.graph.node.insert(places[0] + 1 if places else 0, made)
    return label(made)


def inserted(tensor: str, kind: str, *more: Any, **attributes: Any) -> Callable[[Net], Right]:
    """Put an operator behind a tensor, which an input or a node has by this name."""

    def plant(net: Net) -> Right:
        readers = {label(each) for each in net.graph.node if tensor in each.input}
        return {behind(net, tensor, kind, *more, **attributes)} | (
            readers if len(readers) == 1 else set()
        )

    return plant


def after(
    kind: str, place: int, made: str, *more: Any, **attributes: Any
) -> Callable[[Net], Right]:
    """Put an operator behind a node."""

    def plant(net: Net) -> Right:
        return {behind(net, the(net, kind, place).output[0], made, *more, **attributes)}

    return plant


def last(output: str, kind: str, *more: Any, **attributes: Any) -> Callable[[Net], Right]:
    """Let an operator change an output after everybody else has read it."""

    def plant(net: Net) -> Right:
        for each in net.graph.node:
            for side in (each.input, each.output):
                side[:] = [f"{output}_inner" if name == output else name for name in side]
        names = constants(net, *more)
        made = helper.make_node(
            kind, [f"{output}_inner", *names], [output], f"planted_{kind}", **attributes
        )
        net.graph.node.append(made)
        return {label(made)}

    return plant


def remove(kind: str, place: int = 0) -> Callable[[Net], Right]:
    """Take a node out; its readers read what it read."""

    def plant(net: Net) -> Right:
        node = the(net, kind, place)
        readers = {label(each) for each in net.graph.node if node.output[0] in each.input}
        makers = {label(each) for each in net.graph.node if node.input[0] in each.output}
        for each in net.graph.node:
            each.input[:] = [node.input[0] if n == node.output[0] else n for n in each.input]
        net.graph.node.remove(node)
        return readers | makers

    return plant


def maker(net: Net, tensor: str) -> Right:
    """Return the node that makes a tensor."""
    return {label(each) for each in net.graph.node if tensor in each.output}
