"""Making smaller siblings of an ONNX model: one module for each kind, run in a child process.

Each reads ``model.onnx`` of ``request.source`` and writes ``model.onnx`` (and its external data,
above 2 GB) into ``request.folder``, with the same inputs and outputs, dtypes included.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.domain.variants import Bfloat16, Float16, Int8, VariantSpec


class VariantRequest(Value):
    """What is to be made of what."""

    recipe: Recipe
    spec: VariantSpec
    source: Path
    """Folder of the proven ONNX model."""
    folder: Path
    """Empty folder for the variant."""
    scratch: Path
    """Empty folder for what is of no use afterwards."""
    probes: Path
    """Folder of ``<probe>.npz``, on which activations are looked at."""
    calibration: Path | None = None
    """``.npz`` of real rows, by the inputs' names; int8 needs it."""


class VariantReply(Value):
    """What a reader of the manifest should know of it."""

    notes: tuple[str, ...] = ()


def make_variant(request: VariantRequest) -> VariantReply:
    """Make one variant.

    Raises:
        ExportError: It cannot be expressed: a weight overflows, or there is nothing to change.
    """
    from tasks.variants.bfloat16_variant import make_bfloat16
    from tasks.variants.float16_variant import make_float16
    from tasks.variants.int8_variant import make_int8

    match request.spec:
        case Float16():
            return VariantReply(notes=make_float16(request, request.spec))
        case Bfloat16():
            return VariantReply(notes=make_bfloat16(request, request.spec))
        case Int8():
            return VariantReply(notes=make_int8(request, request.spec))
        case unknown:
            assert_never(unknown)
