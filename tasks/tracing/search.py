"""The first node that goes wrong, though all that it reads is right.

Each tensor of the wrong graph is held against the right side: by its name where both are ONNX
files, by its value where the right side is the source framework, and a declared output by its
name always. A tensor without a counterpart is right where what is made of it is right (a fused
node's inside); otherwise the tensor of its size that the right side made next is what it should
have been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.tracing.agreement import as_laid_out, close
from tasks.tracing.graph import DEAF, finite
from tasks.tracing.graph_names import layer_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.tracing.agreement import RightTensors
    from tasks.tracing.graph import TracedGraph

    Arrays = dict[str, NDArray[Any]]

_FOLLOWERS = 3


@dataclass
class Suspect:
    """The node, the tensor that shows it, what that should be, and how sure this is."""

    node: Any
    """``onnx.NodeProto``."""
    tensor: str
    expected: NDArray[Any] | None
    layer: str
    region: list[Any]
    """All nodes from what agrees to ``tensor``, the node among them, in their order."""
    reason: str


class Search:
    """One wrong graph against one right side."""

    def __init__(
        self, graph: TracedGraph, right: RightTensors, answers: Arrays, *, by_name: bool
    ) -> None:
        """Judge every tensor.

        Args:
            graph: The wrong one.
            right: Every tensor of the right side.
            answers: The right answers by the names of the outputs.
            by_name: Whether equal names mean equal tensors.
        """
        self._graph = graph
        self._right = right
        self._answers = answers
        self._layers = sorted({known.tensor.layer for known in right.made + right.parameters})
        self._expected: Arrays = {}
        self._place: dict[str, int] = {}
        self._layer: dict[str, str] = {}
        self._verdict: dict[str, bool | None] = dict.fromkeys(graph.inputs, True)
        self._judge(by_name={k.tensor.name: k.array for k in right.made} if by_name else {})
        self._trust_sizes()
        self._heal()

    def _judge(self, by_name: Arrays) -> None:
        for name, value in self._graph.values.items():
            known = self._right.find(value)
            if known is not None:
                self._place[name] = known.place
                self._layer[name] = known.tensor.layer
            if name in self._graph.inputs:
                continue
            expected = by_name.get(name)
            if name in self._graph.outputs and name in self._answers:
                expected = self._answers[name]
            if expected is None or (known and name not in self._graph.outputs):
                self._verdict[name] = True if known else None
                continue
            same = expected.shape == value.shape and close(expected, value, self._right.tolerance)
            self._verdict[name] = same
            if not same:
                self._expected[name] = expected

    def _trust_sizes(self) -> None:
        """Take what is reckoned from shapes alone for right: no source has a counterpart of it.

        A size that is wrong shows in the node that reshapes by it.
        """
        sizes: set[str] = set()
        for node in self._graph.nodes:
            read = self._graph.computed(node)
            if node.op_type not in {"Shape", "Size"} and not (read and sizes.issuperset(read)):
                continue
            made = [name for name in node.output if name not in self._graph.outputs]
            sizes.update(made)
            for name in made:
                if self._verdict.get(name) is None:
                    self._verdict[name] = True

    def _heal(self) -> None:
        """Take a tensor for right where what is made of it is right."""
        for node in reversed(self._graph.nodes):
            for name in node.output:
                if self._verdict.get(name) is True or name in self._graph.outputs:
                    continue
                readers = self._graph.readers.get(name, [])
                telling = [each for each in readers if each.op_type not in DEAF]
                if any(self._is_right(each) for each in telling or readers):
                    self._verdict[name] = True

    def _is_right(self, node: Any) -> bool:  # noqa: ANN401
        outputs = [name for name in node.output if name]
        return all(self._verdict.get(name) is True for name in outputs)

    def _reads_right(self, node: Any) -> bool:  # noqa: ANN401
        computed = self._graph.computed(node)
        return all(self._verdict.get(name) is True for name in computed)

    def find(self) -> Suspect | None:
        """Return the culprit; None where every node is right."""
        for node in self._graph.nodes:
            if self._breaks_numbers(node):
                return self._named(node, node.output[0])
        for node in self._graph.nodes:
            if node.op_type == "Constant" or not self._reads_right(node):
                continue
            wrong = [n for n in node.output if n and self._verdict.get(n, True) is not True]
            if wrong:
                return self._named(node, wrong[0])
        return None

    # --- from the first tensor that is not right to the node that made it so ---------------

    def _named(self, node: Any, tensor: str) -> Suspect:  # noqa: ANN401
        region = [node]
        expected = self._counterpart(node, tensor)
        after = self._graph.nodes.index(node) + 1
        for follower in self._graph.nodes[after:]:
            if expected is not None:
                break
            made = {name for each in region for name in each.output}
            if not made & set(follower.input):
                continue
            region.append(follower)
            tensor = follower.output[0]
            expected = self._counterpart(follower, tensor)
        if len(region) == 1:
            region += self._followers(tensor)
        return self._choose(region, tensor, expected)

    def _counterpart(self, node: Any, tensor: str) -> NDArray[Any] | None:  # noqa: ANN401
        if tensor in self._expected:
            return self._expected[tensor]
        value = self._graph.values.get(tensor)
        if value is None or value.dtype.kind in "iub":
            return None
        read = [self._place[n] for n in self._graph.computed(node) if n in self._place]
        layer = layer_of(node, self._layers)
        found = self._right.next_unmet(value.size, max(read, default=-1), layer)
        if found is None:
            return None
        self._layer[tensor] = found.tensor.layer
        return as_laid_out(found.array, value.shape)

    def _followers(self, tensor: str) -> list[Any]:
        """Return the nodes that only add to ``tensor``, or scale it, by weights."""
        found: list[Any] = []
        while len(found) < _FOLLOWERS and tensor not in self._expected:
            readers = self._graph.readers.get(tensor, [])
            if len(readers) != 1 or readers[0].op_type not in {"Add", "Mul", "Sub", "Div"}:
                break
            if len(self._graph.computed(readers[0])) != 1:
                break
            found.append(readers[0])
            tensor = readers[0].output[0]
        return found

    def _choose(self, region: list[Any], tensor: str, expected: NDArray[Any] | None) -> Suspect:
        """Pick one node of a region by what else speaks against it."""
        layers = {id(each): layer_of(each, self._layers) for each in region}

        def suspect(node: Any, reason: str, *, own: bool = False) -> Suspect:  # noqa: ANN401
            shown = node.output[0] if own else tensor
            layer = layers[id(node)] or self._layer.get(tensor, "")
            last = max(i for i, each in enumerate(region) if each is node or shown in each.output)
            return Suspect(node, shown, expected, layer, region[: last + 1], reason)

        for node in region:
            if self._breaks_numbers(node):
                return suspect(node, "makes NaN or infinity of finite numbers")
        ends = next(i for i, each in enumerate(region) if tensor in each.output)
        for place, node in enumerate(region):
            if self._strange_weights(node) and len(region) > 1:
                reason = "reads weights that the source does not have"
                return suspect(node, reason, own=place > ends)
        until = region[: ends + 1]
        if main := [node for node in until if self._weighs(node)]:
            return suspect(main[0], "differs first")
        reckoning = [node for node in until if node.op_type != "Identity"]
        return suspect((reckoning or until)[-1], "differs first")

    def _breaks_numbers(self, node: Any) -> bool:  # noqa: ANN401
        """Whether a node makes NaN or infinity where the right side has finite numbers alone."""
        outputs = [self._graph.values.get(name) for name in node.output]
        read = [self._graph.values.get(name) for name in self._graph.computed(node)]
        broken = not all(map(finite, outputs)) and all(map(finite, read))
        right = [name for name in node.output if self._verdict.get(name) is True]
        return broken and not right

    def _weighs(self, node: Any) -> bool:  # noqa: ANN401
        weights = [self._graph.weight(name) for name in node.input if name]
        return any(
            each is not None and each.dtype.kind == "f" and each.size > 1 for each in weights
        )

    def _strange_weights(self, node: Any) -> bool:  # noqa: ANN401
        """Whether a weight that the node reads is none of the source's own."""
        weights = [self._graph.weight(name) for name in node.input if name]
        given = [each for each in weights if each is not None and each.dtype.kind == "f"]
        known = self._right.parameters
        return bool(known) and any(
            not any(
                close(k.array, w, self._right.tolerance) for k in known if k.array.size == w.size
            )
            for w in given
        )
