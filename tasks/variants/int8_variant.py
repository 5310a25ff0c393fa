"""A model in 8 bits: static quantisation by ONNX Runtime, calibrated on real rows, as QDQ.

Activations are unsigned and weights signed, which is what x86 processors with VNNI multiply in
one instruction. Ranges are the least and the greatest value that real rows bring about: the
calibrator keeps those two numbers of each tensor and no tensor itself, so that its memory does
not grow with the rows.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tasks.arrays import load_arrays
from tasks.child import report_progress
from tasks.converters.onnx_weights import EXTERNAL_DATA
from tasks.domain.errors import ExportError
from tasks.runners.onnxruntime_runner import MODEL
from tasks.steps.onnx_file import nodes
from tasks.variants.editing import Kept, kept, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.domain.variants import Int8
    from tasks.steps.onnx_file import Proto
    from tasks.variants import VariantRequest

_BATCH = 4
"""Rows of one calibration step; they bound its memory."""
_FIRST_OPSET = 13
"""QuantizeLinear has an axis, for scales by channel, since then. Source: onnx/docs/Changelog.md."""


def make_int8(request: VariantRequest, spec: Int8) -> tuple[str, ...]:
    """Measure ranges on the calibration rows, and quantise.

    Raises:
        ExportError: There are no calibration rows, nothing was quantised, the opset is too
            old, or ``keep_float32`` names what is not there.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    where = f"{request.recipe.name}: int8"
    if request.calibration is None:
        message = f"{where}: no rows to calibrate on. Name real rows under 'parity.real'."
        raise ExportError(message)
    rows = load_arrays(request.calibration)
    stay = _check(where, request, spec)
    quantised = request.scratch / "quantised.onnx"
    with _temporary_files_in(request.scratch):
        prepared, excluded = _prepare(request, stay.operators, stay.nodes)
        report_progress(0.3, "calibrating")
        quantize_static(
            prepared,
            quantised,
            _reader(rows),
            quant_format=QuantFormat.QDQ,
            per_channel=spec.per_channel,
            reduce_range=spec.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            use_external_data_format=_is_apart(request.source),
        )
    report_progress(0.9, "writing")
    model = onnx.load(quantised)
    count = sum(each.op_type == "QuantizeLinear" for each in nodes(model))
    if not count:
        message = f"{where}: nothing of it can be quantised. Leave the variant out."
        raise ExportError(message)
    write(model, request.scratch, request.folder)
    weights = "by channel" if spec.per_channel else "by tensor"
    return (f"QDQ, unsigned activations, signed weights {weights}, {count} quantised tensors",)


def _check(where: str, request: VariantRequest, spec: Int8) -> Kept:
    import onnx

    model = onnx.load(request.source / MODEL, load_external_data=False)
    opset = max(each.version for each in model.opset_import if each.domain in {"", "ai.onnx"})
    if opset < _FIRST_OPSET:
        message = (
            f"{where}: opset {opset} has no scales by channel (expected {_FIRST_OPSET} or later). "
            "Raise the recipe's opset."
        )
        raise ExportError(message)
    return kept(where, model, spec.keep_float32)


def _prepare(
    request: VariantRequest, operators: frozenset[str], names: frozenset[str]
) -> tuple[Path, list[str]]:
    """Fold what folds and infer shapes, as quantising wants; return the file, and what stays."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = request.scratch / "prepared.onnx"
    apart = _is_apart(request.source)
    quant_pre_process(
        request.source / MODEL,
        prepared,
        skip_symbolic_shape=True,
        save_as_external_data=apart,
        all_tensors_to_one_file=apart,
        external_data_location=f"prepared-{EXTERNAL_DATA}" if apart else None,
    )
    model: Proto = onnx.load(prepared, load_external_data=False)
    stays = [each.name for each in nodes(model) if each.op_type in operators or each.name in names]
    return prepared, stays


def _is_apart(source: Path) -> bool:
    return (source / EXTERNAL_DATA).is_file()


def _reader(rows: dict[str, NDArray[Any]]) -> Any:  # noqa: ANN401 - the package has no types
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """A few rows at a time."""

        def __init__(self) -> None:
            count = len(next(iter(rows.values())))
            self._starts = iter(range(0, count, _BATCH))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            start = next(self._starts, None)
            if start is None:
                return None
            return {name: each[start : start + _BATCH] for name, each in rows.items()}

    return Reader()


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Let the package's own temporary files go where they are cleared away with the run."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
