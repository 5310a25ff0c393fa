"""The canonical digest of an ONNX file: what it computes, whatever its exporter called things.

Names of nodes and of inner tensors, the order of independent nodes, doc strings, producer,
metadata, shape notes on inner tensors, the IR version and the encoding of tensors (inline,
typed or beside the model) leave it alike. A weight, an attribute, an edge, a shape of the
signature, the signature's names and an operator set's version change it.

No tensor is renumbered. Each gets a digest of how it is computed: an input's of its place and
type, a weight's of its content, a node's of its operator, attributes and inputs; so two orders
of the same nodes agree by themselves, and no tie is ever broken. A node's digest is then joined
with those of the nodes that use it, which tells one node used twice from two equal nodes.

Known limit: an attribute that an exporter writes with its default value differs from one that
it leaves out.
"""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.domain.artifact import Canonical
from tasks.domain.errors import VerificationError
from tasks.domain.reproducibility import Fingerprint
from tasks.domain.value import Value
from tasks.runners.onnxruntime_runner import MODEL
from tasks.steps.onnx_file import Proto, check_external_data, facts_of, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PIECE_BYTES = 1024 * 1024
_TREES = "ai.onnx.ml"
"""The domain whose operators keep their weights in lists of attributes."""


class FingerprintRequest(Value):
    """Which file."""

    model: Path
    """The ``.onnx`` file, or its folder; external data stand beside it."""


def fingerprint(request: FingerprintRequest) -> Fingerprint:
    """Take the canonical digest of an ONNX file, of its parts and of each of its weights.

    Raises:
        VerificationError: The file is broken.
    """
    path = request.model / MODEL if request.model.is_dir() else request.model
    model = parse(path.name, path)
    check_external_data(path.name, model, path.parent)
    facts = facts_of(model)
    canonical, weights = canonical_of(path.name, model, path.parent)
    return Fingerprint(
        canonical=canonical, opsets=facts.opsets, operators=facts.operators, weights=weights
    )


def canonical_of(where: str, model: Proto, folder: Path) -> tuple[Canonical, dict[str, str]]:
    """Return the canonical digests of a parsed model, and that of each weight by its name.

    Args:
        where: What an error begins with.
        model: As ``parse`` returns it; external data need not be loaded.
        folder: Where the external data stand.

    Raises:
        VerificationError: A node uses a tensor that nothing before it makes.
    """
    reader = _Reader(where, folder)
    graph = reader.graph(model.graph, {}, depth=0)
    functions = _bag(reader.function(each) for each in model.functions)
    training = _bag(_mix(_plain(each)) for each in model.training_info)
    graph = _mix("model", graph, functions, training)
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    signature = _mix(
        "signature", *(_mix(side, each.name, _plain(each.type))
        for side, values in (("in", inputs), ("out", model.graph.output)) for each in values)
    )  # fmt: skip
    opsets = _mix("opsets", *sorted(f"{_domain(e.domain)} {e.version}" for e in model.opset_import))
    held = _bag(digest for _, digest in reader.weights)
    canonical = Canonical(
        sha256=_mix("all", signature, opsets, graph).full.hex(),
        signature=signature.full.hex(),
        opsets=opsets.full.hex(),
        graph=graph.blind.hex(),
        weights=held.full.hex(),
    )
    return canonical, {name: digest.full.hex() for name, digest in reader.weights}


class _Digest(NamedTuple):
    """A digest that does not see the content of weights, and one that does."""

    blind: bytes
    full: bytes


def _mix(*parts: str | int | bytes | _Digest) -> _Digest:
    """Join parts in their order."""
    blind, full = hashlib.sha256(), hashlib.sha256()
    for part in parts:
        pair = part if isinstance(part, _Digest) else _Digest(_bytes(part), _bytes(part))
        for digest, content in ((blind, pair.blind), (full, pair.full)):
            digest.update(struct.pack("<q", len(content)))
            digest.update(content)
    return _Digest(blind.digest(), full.digest())


def _bag(parts: Iterable[_Digest]) -> _Digest:
    """Join parts that have no order."""
    listed = list(parts)
    return _Digest(
        _mix(*sorted(each.blind for each in listed)).blind,
        _mix(*sorted(each.full for each in listed)).full,
    )


def _bytes(part: str | int | bytes) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


def _plain(message: Proto) -> bytes:
    content: bytes = message.SerializeToString(deterministic=True)
    return content


def _domain(name: str) -> str:
    return name or "ai.onnx"


def _type_without_names(value: Proto) -> bytes:
    """Return a type in which free axes have no names: inside a graph, exporters make them up."""
    made = type(value.type)()
    made.CopyFrom(value.type)
    if made.HasField("tensor_type"):
        for dim in made.tensor_type.shape.dim:
            dim.ClearField("dim_param")
    return _plain(made)


def _trimmed(names: Sequence[str]) -> list[str]:
    """Leave out what is absent at the end of a list of inputs or outputs."""
    listed = list(names)
    while listed and not listed[-1]:
        listed.pop()
    return listed


class _Reader:
    """One walk through a model, which also lists its weights."""

    def __init__(self, where: str, folder: Path) -> None:
        self.weights: list[tuple[str, _Digest]] = []
        self._where = where
        self._folder = folder

    def graph(self, graph: Proto, outer: dict[str, _Digest], depth: int) -> _Digest:
        """Return the digest of a graph; ``outer`` holds the tensors that it may use from around."""
        known = dict(outer)
        held = [self._initializer(each.name, each) for each in graph.initializer]
        known |= dict(zip((each.name for each in graph.initializer), held, strict=True))
        for sparse in graph.sparse_initializer:
            known[sparse.values.name] = self._sparse(sparse.values.name, sparse)
            held.append(known[sparse.values.name])
        inputs = [each for each in graph.input if each.name not in known.keys() - outer.keys()]
        for place, each in enumerate(inputs):
            known[each.name] = _mix("input", depth, place, _type_without_names(each))
        nodes = self._nodes(graph.node, known, depth)
        answers = [
            _mix(self._use(known, each.name), _type_without_names(each)) for each in graph.output
        ]
        return _mix("graph", len(inputs), *answers, "nodes", nodes, "weights", _bag(held))

    def function(self, function: Proto) -> _Digest:
        """Return the digest of a function that the model defines."""
        known = {name: _mix("parameter", place) for place, name in enumerate(function.input)}
        nodes = self._nodes(function.node, known, depth=0)
        return _mix(
            "function", _domain(function.domain), function.name, function.overload,
            len(function.input), *sorted(function.attribute),
            *self._attributes(function.name, "", function.attribute_proto, known, 0),
            *sorted(f"{_domain(each.domain)} {each.version}" for each in function.opset_import),
            *(self._use(known, name) for name in function.output), nodes,
        )  # fmt: skip

    def _nodes(self, nodes: Iterable[Proto], known: dict[str, _Digest], depth: int) -> _Digest:
        """Add the nodes' outputs to ``known``, and return one digest for all nodes."""
        made: list[tuple[_Digest, list[str]]] = []
        uses: defaultdict[str, list[_Digest]] = defaultdict(list)
        for node in nodes:
            inputs, outputs = _trimmed(node.input), _trimmed(node.output)
            label = node.output[0] if outputs else node.name
            digest = _mix(
                "node", _domain(node.domain), node.op_type, node.overload,
                *("made" if name else "absent" for name in outputs), "inputs",
                *(self._use(known, name) if name else "absent" for name in inputs), "attributes",
                *self._attributes(label, node.domain, node.attribute, known, depth),
            )  # fmt: skip
            for place, name in enumerate(inputs):
                uses[name].append(_mix("used", place, digest))
            known |= {name: _mix("output", i, digest) for i, name in enumerate(outputs) if name}
            made.append((digest, outputs))
        return _bag(
            _mix(digest, *(_bag(uses[name]) for name in outputs)) for digest, outputs in made
        )

    def _use(self, known: dict[str, _Digest], name: str) -> _Digest:
        if name not in known:
            message = (
                f"{self._where}: tensor '{name}' is used and nothing before makes it (expected "
                "nodes in the order of their computation). Export the model anew."
            )
            raise VerificationError(message)
        return known[name]

    def _attributes(
        self, label: str, domain: str, attributes: Iterable[Proto],
        known: dict[str, _Digest], depth: int,
    ) -> list[_Digest]:  # fmt: skip
        return [
            _mix(each.name, each.type, self._attribute(label, domain, each, known, depth))
            for each in sorted(attributes, key=lambda each: str(each.name))
        ]

    def _attribute(
        self, label: str, domain: str, each: Proto, known: dict[str, _Digest], depth: int
    ) -> _Digest:
        name = f"{label}.{each.name}"
        if each.ref_attr_name:
            return _mix("reference", each.ref_attr_name)
        if each.HasField("t") or each.tensors:
            held = [each.t] if each.HasField("t") else list(each.tensors)
            return _mix("tensors", *(self._initializer(name, tensor) for tensor in held))
        if each.HasField("sparse_tensor") or each.sparse_tensors:
            sparse = [each.sparse_tensor] if each.HasField("sparse_tensor") else each.sparse_tensors
            return _mix("sparse", *(self._sparse(name, tensor) for tensor in sparse))
        if each.HasField("g") or each.graphs:
            graphs = [each.g] if each.HasField("g") else each.graphs
            return _mix("graphs", *(self.graph(graph, known, depth + 1) for graph in graphs))
        if each.floats and domain == _TREES:
            content = struct.pack(f"<{len(each.floats)}f", *each.floats)
            return self._weight(name, _mix("floats", len(each.floats)), content)
        plain = type(each)()
        plain.CopyFrom(each)
        plain.ClearField("doc_string")
        return _mix(_plain(plain))

    def _initializer(self, name: str, tensor: Proto) -> _Digest:
        shape = _mix("tensor", tensor.data_type, *tensor.dims)
        return self._weight(name, shape, _content_of(tensor, self._folder))

    def _sparse(self, name: str, sparse: Proto) -> _Digest:
        parts = [self._initializer(name, each) for each in (sparse.values, sparse.indices)]
        return _mix("sparse", *sparse.dims, *parts)

    def _weight(self, name: str, shape: _Digest, content: bytes) -> _Digest:
        digest = _Digest(shape.blind, _mix(shape, content).full)
        self.weights.append((name, digest))
        return digest


def _content_of(tensor: Proto, folder: Path) -> bytes:
    """Return a digest of a tensor's numbers, in whichever way the file keeps them."""
    digest = hashlib.sha256()
    if tensor.data_location == tensor.EXTERNAL:
        _read_external(tensor, folder, digest)
    elif tensor.string_data:
        for each in tensor.string_data:
            digest.update(struct.pack("<q", len(each)) + each)
    elif tensor.HasField("raw_data"):
        digest.update(tensor.raw_data)
    else:
        from onnx import numpy_helper

        digest.update(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)
    return digest.digest()


def _read_external(tensor: Proto, folder: Path, digest: Any) -> None:  # noqa: ANN401 - hashlib's own
    """Stream the part of the file that is the tensor's."""
    entry = {each.key: each.value for each in tensor.external_data}
    path = folder / entry["location"]
    offset = int(entry.get("offset", 0))
    left = int(entry.get("length", path.stat().st_size - offset))
    with path.open("rb") as file:
        file.seek(offset)
        while left > 0 and (piece := file.read(min(left, _PIECE_BYTES))):
            digest.update(piece)
            left -= len(piece)
