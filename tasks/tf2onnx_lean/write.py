"""An ONNX file, written weight by weight so that no more than one of them is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.tf2onnx_lean.fold import used_names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

    from onnx import GraphProto, ModelProto, TensorProto

    from tasks.tf2onnx_lean.weights import Weight

LARGEST_FILE = 2_000_000_000
"""Bytes of weights that one file may hold: protobuf readers refuse messages above 2 GiB."""
_ALIGNMENT = 4_096  # of external data, so that readers can map it: onnx/onnx.proto, external_data
_LENGTH_DELIMITED = 2  # protobuf wire type


def write_model(
    model: ModelProto,
    weights: Mapping[str, Weight],
    path: Path,
    largest_file: int = LARGEST_FILE,
) -> None:
    """Write ``model`` with ``weights`` as its further initializers.

    Above ``largest_file`` bytes of weights their values go to ``<path>.data`` beside it.

    Args:
        model: An ``onnx.ModelProto``; initializers that nothing reads are left out.
        weights: By tensor name; those that nothing reads are left out.
        path: Where the file goes.
        largest_file: Bytes of weights that it may hold.
    """
    needed = used_names(model.graph)
    kept = {name: weight for name, weight in weights.items() if name in needed}
    initializers = [each for each in model.graph.initializer if each.name in needed]
    skeleton = type(model)()
    skeleton.CopyFrom(model)
    del skeleton.graph.initializer[:]
    skeleton.graph.initializer.extend(initializers)
    external = sum(each.size_bytes for each in kept.values()) > largest_file
    if external:
        _write_data(skeleton, kept, path.with_name(f"{path.name}.data"))
        kept = {}
    with path.open("wb") as file:
        _write_file(skeleton, kept, file)


def _write_file(model: ModelProto, weights: Mapping[str, Weight], file: BinaryIO) -> None:
    """Write the message as protobuf would, but with the weights streamed into the graph.

    Fields of a message may come in any order, so the initializers follow the rest of the
    graph, and the graph follows the rest of the model.
    Source: https://protobuf.dev/programming-guides/encoding/
    """
    graph = model.graph.SerializeToString()
    heads = {name: _tensor_head(name, weight) for name, weight in weights.items()}
    tag = _tag(model.graph, "initializer")
    before = {
        name: tag + _varint(len(head) + weights[name].size_bytes) + head
        for name, head in heads.items()
    }
    size = len(graph) + sum(len(before[name]) + weights[name].size_bytes for name in weights)
    tag = _tag(model, "graph")
    model.ClearField("graph")
    file.write(model.SerializeToString() + tag + _varint(size) + graph)
    for name, weight in weights.items():
        file.write(before[name])
        file.write(_bytes(weight))


def _write_data(model: ModelProto, weights: Mapping[str, Weight], path: Path) -> None:
    from onnx import TensorProto

    with path.open("wb") as file:
        for name, weight in weights.items():
            file.seek(-file.tell() % _ALIGNMENT, 1)
            tensor = _tensor(name, weight)
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": path.name, "offset": file.tell(), "length": weight.size_bytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            model.graph.initializer.append(tensor)
            file.write(_bytes(weight))


def _bytes(weight: Weight) -> memoryview:
    value = weight.value()
    little = value.astype(value.dtype.newbyteorder("<"), copy=False)  # onnx.proto: raw_data
    return little.reshape(-1).data.cast("B")


def _tensor(name: str, weight: Weight) -> TensorProto:
    from onnx import TensorProto, helper

    code = helper.np_dtype_to_tensor_dtype(weight.dtype)
    return TensorProto(name=name, dims=weight.shape, data_type=code)


def _tensor_head(name: str, weight: Weight) -> bytes:
    tensor = _tensor(name, weight)
    head: bytes = tensor.SerializeToString()
    return head + _tag(tensor, "raw_data") + _varint(weight.size_bytes)


def _tag(message: ModelProto | GraphProto | TensorProto, field: str) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | _LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
