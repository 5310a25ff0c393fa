"""An ONNX file that asks for no newer reader than it needs.

Exporters write the IR version of the ``onnx`` package that they were built with, and a runtime
that is a year older then refuses a file of which it knows every operator.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.domain.value import Value

if TYPE_CHECKING:
    from tasks.steps.onnx_file import Proto

_FIELD = 0x08
"""How protobuf begins a ``ModelProto``: field 1, ``ir_version``, as a varint."""
_ONE_BYTE = 0x80
_TYPES = {16: 4, **dict.fromkeys(range(17, 21), 9), 21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13}
"""The IR version that brought a dtype of ``TensorProto.DataType``, beyond IR 3."""
_NEWEST_KNOWN_TYPE = 26


class LowerIrRequest(Value):
    """Which file; it is changed where it stands."""

    model: Path


class LowerIrReply(Value):
    """What was done."""

    notes: tuple[str, ...] = ()


def lower_ir_version(request: LowerIrRequest) -> LowerIrReply:
    """Lower the IR version to what operator sets and constructs of the file need, one byte.

    A file that does not parse, or does not begin with its IR version, stays as it is:
    verification has the words for it.
    """
    import onnx

    try:
        model = onnx.load(request.model, load_external_data=False)
        least = least_ir_version(model)
    except Exception:  # noqa: BLE001 - verification says what is wrong with the file
        return LowerIrReply()
    got = model.ir_version
    with request.model.open("r+b") as file:
        if least >= got or file.read(2) != bytes([_FIELD, got]) or got >= _ONE_BYTE:
            return LowerIrReply()
        file.seek(1)
        file.write(bytes([least]))
    return LowerIrReply(notes=(f"IR version lowered from {got} to {least}, which is enough",))


def least_ir_version(model: Proto) -> int:
    """Return the lowest IR version that has all that the model uses.

    Metadata on nodes, which came with IR 10, are no reason: an older reader skips them.
    Source: the comments on ``enum Version`` in onnx/onnx.proto.

    Raises:
        ValueError: An operator set is newer than the ``onnx`` package.
    """
    from onnx import helper

    from tasks.steps.onnx_file import nodes, tensors

    least = int(helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True))
    inputs = {each.name for each in model.graph.input}
    everything, types = list(nodes(model)), {each.data_type for each in tensors(model)}
    needs: dict[int, bool] = {
        4: any(each.name not in inputs for each in model.graph.initializer),
        5: bool(model.graph.quantization_annotation),
        6: bool(model.graph.sparse_initializer),
        7: bool(model.training_info),
        8: bool(model.functions),
        9: any(each.attribute_proto for each in model.functions),
        10: any(each.overload for each in (*everything, *model.functions)),
        11: any(each.device_configurations for each in everything),
        int(model.ir_version): any(each > _NEWEST_KNOWN_TYPE for each in types),
    }
    held = [_TYPES.get(each, least) for each in types]
    needed = [version for version, is_used in needs.items() if is_used]
    return max([least, *held, *needed])
