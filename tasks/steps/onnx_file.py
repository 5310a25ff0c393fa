"""Looking into an ONNX file without running it: what it is, and what no runtime would tell."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.domain.artifact import DType, OnnxFacts
from tasks.domain.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator

Proto: TypeAlias = Any
"""A message of onnx.proto, whose package has no types."""

_HEAD_BYTES = 512
_RUNTIME_OWN = {("com.microsoft", "Tokenizer")}
"""Operators of ONNX Runtime alone that are let through: ONNX itself has none that splits text by
a pattern, so no model of text could be released without it."""

DTYPES: dict[int, DType] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
"""Source: enum TensorProto.DataType of onnx/onnx.proto."""


def parse(where: str, path: Path) -> Proto:
    """Read the model's graph and inline weights, but no external data.

    Raises:
        VerificationError: The file is absent, empty, something else, or cut short.
    """
    import onnx

    if not path.is_file() or path.stat().st_size == 0:
        state = "empty" if path.is_file() else "not there"
        raise VerificationError(f"{where}: {path.name} is {state}. Export the model anew.")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).lstrip()
    if head.startswith((b"<", b"version https://git-lfs")):
        kind = "an HTML or XML page" if head.startswith(b"<") else "a Git LFS pointer"
        message = (
            f"{where}: {path.name} is {kind} (expected an ONNX model, got "
            f"'{head[:40].decode(errors='replace')}'). Check where the file came from."
        )
        raise VerificationError(message)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        message = (
            f"{where}: {path.name} is no ONNX model, or is cut short (expected a protobuf, got "
            f"{path.stat().st_size:,} bytes that do not parse). Export the model anew."
        )
        raise VerificationError(message) from error
    if not model.ir_version or not (model.graph.node or model.graph.output):
        message = f"{where}: {path.name} holds no graph. Export the model anew."
        raise VerificationError(message)
    return model


def nodes(model: Proto) -> Iterator[Proto]:
    """Yield every node, those of subgraphs and of the model's own functions included."""
    stack = [*model.graph.node]
    for function in model.functions:
        stack.extend(function.node)
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                stack.extend(graph.node)


def _graphs(model: Proto) -> Iterator[Proto]:
    yield model.graph
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def tensors(model: Proto) -> Iterator[Proto]:
    """Yield every tensor that the file holds: initializers, and constants of nodes."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def describe(node: Proto) -> str:
    """Write a node as ``Conv 'name'``, or by its first output where it has no name."""
    return f"{node.op_type} '{node.name or ', '.join(node.output[:1])}'"


def facts_of(model: Proto) -> OnnxFacts:
    """Return what a reader of the manifest wants to know of the graph.

    The number of weights counts all numbers in initializers, constants and lists of
    attributes, which is where ``ai.onnx.ml`` keeps its trees and coefficients.
    """
    counted = Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in nodes(model)
    )
    held = list(tensors(model))
    listed = sum(len(attribute.floats) for node in nodes(model) for attribute in node.attribute)
    return OnnxFacts(
        ir_version=model.ir_version,
        opsets={each.domain or "ai.onnx": each.version for each in model.opset_import},
        operators=dict(sorted(counted.items())),
        parameters=sum(math.prod(each.dims) for each in held) + listed,
        external_data=any(each.data_location == each.EXTERNAL for each in held),
    )


def check_opset(where: str, facts: OnnxFacts, expected: int) -> None:
    """Hold the default operator set to the version that was asked for.

    Raises:
        VerificationError: It is another one.
    """
    got = facts.opsets.get("ai.onnx")
    if got != expected:
        message = (
            f"{where}: the operator set is not the one asked for (expected ai.onnx {expected}, "
            f"got {f'ai.onnx {got}' if got else 'none'}). Ask for opset {got or expected} in the "
            "recipe, or use a converter that keeps to it."
        )
        raise VerificationError(message)


def check_domains(where: str, model: Proto) -> tuple[str, ...]:
    """Allow the operators of ONNX, ONNX-ML and the model's own functions, and return exceptions.

    Raises:
        VerificationError: A node is of any other domain.
    """
    own = {(each.domain, each.name) for each in model.functions}
    exceptions = set()
    for node in nodes(model):
        operator = (node.domain, node.op_type)
        if node.domain in {"", "ai.onnx", "ai.onnx.ml"} or operator in own:
            continue
        if operator not in _RUNTIME_OWN:
            message = (
                f"{where}: node {describe(node)} is of the domain '{node.domain}' (expected "
                "ai.onnx or ai.onnx.ml), which other runtimes do not know. Replace that layer, "
                "or use another converter."
            )
            raise VerificationError(message)
        exceptions.add(f"{node.domain} {node.op_type}: runs in ONNX Runtime alone")
    return tuple(sorted(exceptions))


def check_external_data(where: str, model: Proto, folder: Path) -> tuple[str, ...]:
    """Make sure that weights kept beside the model are all there, and return their files' names.

    Raises:
        VerificationError: A file is missing, too short, or not inside ``folder``.
    """
    sizes: dict[str, int] = {}
    for tensor in tensors(model):
        if tensor.data_location != tensor.EXTERNAL:
            continue
        entry = {each.key: each.value for each in tensor.external_data}
        location = entry.get("location", "")
        if location not in sizes:
            sizes[location] = _external_size(where, tensor.name, location, folder)
        end = int(entry.get("offset", 0)) + int(entry.get("length", 0))
        if end > sizes[location]:
            message = (
                f"{where}: external data of '{tensor.name}': {location} is cut short (expected "
                f"at least {end:,} bytes, got {sizes[location]:,}). Export the model anew."
            )
            raise VerificationError(message)
    return tuple(sorted(sizes))


def _external_size(where: str, tensor: str, location: str, folder: Path) -> int:
    parts = posixpath.normpath(location.replace("\\", "/")).split("/")
    if not location or location.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        message = (
            f"{where}: external data of '{tensor}' lie outside the model's folder (expected a "
            f"name such as model.onnx.data, got '{location}'). Do not use this file; export the "
            "model anew."
        )
        raise VerificationError(message)
    path = folder.joinpath(*parts)
    if not path.is_file():
        message = (
            f"{where}: external data of '{tensor}' are missing (expected {location} beside the "
            "model). Keep both files together; export the model anew."
        )
        raise VerificationError(message)
    return path.stat().st_size


def check_inference_mode(where: str, model: Proto) -> None:
    """Make sure that no node behaves as in training.

    Raises:
        VerificationError: A BatchNormalization or Dropout does.
    """
    constants = _constant_booleans(model)
    for node in nodes(model):
        why = ""
        if node.op_type == "BatchNormalization":
            mode = any(each.name == "training_mode" and each.i for each in node.attribute)
            extra = [name for name in node.output[1:] if name]
            if mode or extra:
                why = "training_mode=1" if mode else f"{len(extra)} outputs of batch statistics"
        elif node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:  # noqa: PLR2004
            known = constants.get(node.input[2])
            if known is not False:
                why = "training_mode=true" if known else "a training_mode that is not constant"
        if why:
            message = (
                f"{where}: node {describe(node)} is in training mode (expected inference, got "
                f"{why}). Switch the model to inference before export, such as by model.eval()."
            )
            raise VerificationError(message)


def _constant_booleans(model: Proto) -> dict[str, bool]:
    """Return the value of each constant scalar boolean, by the name of its tensor."""
    import onnx.numpy_helper
    from onnx import TensorProto

    named = [(each.name, each) for graph in _graphs(model) for each in graph.initializer]
    for node in nodes(model):
        if node.op_type == "Constant":
            named += [(node.output[0], each.t) for each in node.attribute if each.HasField("t")]
    return {
        name: bool(onnx.numpy_helper.to_array(each).any())
        for name, each in named
        if each.data_type == TensorProto.BOOL
        and math.prod(each.dims) == 1
        and each.data_location != TensorProto.EXTERNAL
    }
