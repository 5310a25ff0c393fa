"""Where an ONNX model keeps its weights: in the one file, or beside it once it is too large.

A protobuf library copies each weight several times to write them into one file. Here they
are streamed: protobuf writes the frame of each, and its bytes are copied from file to file.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, NamedTuple

MODEL = "model.onnx"
EXTERNAL_DATA = "model.onnx.data"

ONE_FILE_BYTES = 2_000_000_000
"""Above this, weights stand in ``model.onnx.data``.

Source: ``onnx.checker.MAXIMUM_PROTOBUF``; a protobuf message ends at 2 GiB.
"""

_SMALL_BYTES = 1024
"""Weights below this stay in the model's file: shapes and axes, which checkers read there."""
_PAGE_BYTES = 4096
"""External weights begin at a page, so that a runtime can map them.

Source: https://github.com/onnx/onnx/blob/main/docs/ExternalData.md
"""
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""Field numbers of ``ModelProto.graph``, ``GraphProto.initializer``, ``TensorProto.raw_data``.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""
_CHUNK_BYTES = 1024 * 1024
_LENGTH_DELIMITED = 2
"""Source: https://protobuf.dev/programming-guides/encoding/"""


class _Place(NamedTuple):
    """Where a weight's bytes are."""

    location: str
    offset: int
    length: int


def write_model(model: Any, scratch: Path, folder: Path) -> None:  # noqa: ANN401
    """Write ``model.onnx`` into ``folder``, and ``model.onnx.data`` if its weights need it.

    Args:
        model: An ``onnx.ModelProto``, loaded without its external data; it is used up.
        scratch: Where the files of its external data are; they may be moved from there.
        folder: Where to write.
    """
    if weight_bytes(model) > ONE_FILE_BYTES:
        _write_apart(model, scratch, folder)
    else:
        _write_as_one(model, scratch, folder)


def weight_bytes(model: Any) -> int:  # noqa: ANN401
    """Return how many bytes the weights of a model take, in its file and outside."""
    return sum(_place(each).length or each.ByteSize() for each in model.graph.initializer)


def _write_as_one(model: Any, scratch: Path, folder: Path) -> None:  # noqa: ANN401
    frames = [_frame(tensor) for tensor in model.graph.initializer]
    del model.graph.initializer[:]
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    size = len(graph) + sum(len(head) + place.length for head, place in frames)
    with (folder / MODEL).open("wb") as file:
        file.write(model.SerializeToString())
        file.write(_tag(_GRAPH) + _varint(size) + graph)
        for head, place in frames:
            file.write(head)
            if place.location:
                _copy(scratch, place, file)


def _frame(tensor: Any) -> tuple[bytes, _Place]:  # noqa: ANN401
    """Return what stands before a weight's own bytes, and where those are."""
    place = _place(tensor)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    head = tensor.SerializeToString()
    if place.location:
        head += _tag(_RAW_DATA) + _varint(place.length)
    return _tag(_INITIALIZER) + _varint(len(head) + place.length) + head, place


def _write_apart(model: Any, scratch: Path, folder: Path) -> None:  # noqa: ANN401
    import onnx

    with (folder / EXTERNAL_DATA).open("wb") as file:
        for tensor in model.graph.initializer:
            place = _place(tensor)
            if not place.location and len(tensor.raw_data) < _SMALL_BYTES:
                continue
            file.seek(-file.tell() % _PAGE_BYTES, 1)
            offset = file.tell()
            if place.location:
                _copy(scratch, place, file)
            else:
                file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.EXTERNAL
            entries = {"location": EXTERNAL_DATA, "offset": offset, "length": file.tell() - offset}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
    (folder / MODEL).write_bytes(model.SerializeToString())


def _place(tensor: Any) -> _Place:  # noqa: ANN401
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return _Place(
        entries.get("location", ""), int(entries.get("offset", 0)), int(entries.get("length", 0))
    )


def _copy(folder: Path, place: _Place, target: IO[bytes]) -> None:
    left = place.length
    with (folder / place.location).open("rb") as source:
        source.seek(place.offset)
        while left:
            chunk = source.read(min(left, _CHUNK_BYTES))
            if not chunk:
                message = f"{place.location}: ends {left} bytes too early"
                raise EOFError(message)
            target.write(chunk)
            left -= len(chunk)


def _tag(field: int) -> bytes:
    return _varint(field << 3 | _LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    """Write a number as protobuf does: seven bits a byte, the lowest first."""
    written = bytearray()
    while number >> 7:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
