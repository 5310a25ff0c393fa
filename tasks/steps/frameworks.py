"""Import what a later call will need, while the parent has other things to do."""

from __future__ import annotations

import importlib

from tasks.domain.value import Value


class ImportRequest(Value):
    """What to import."""

    modules: tuple[str, ...]
    onnx_tf: bool = False
    """Whether to put onnx-tf together as well."""


class ImportReply(Value):
    """Nothing: that it came is all there is to say."""


def import_frameworks(request: ImportRequest) -> ImportReply:
    """Import the modules, so that the next call of this process need not."""
    for module in request.modules:
        importlib.import_module(module)
    if request.onnx_tf:
        from tasks.onnxtf.backend import load_backend

        load_backend()
    return ImportReply()
