"""onnx-tf, put together with what stands here."""

from __future__ import annotations

from functools import cache
from typing import Any

from tasks.onnxtf.check import check_operators, nodes_of


@cache
def load_backend() -> Any:  # noqa: ANN401 - a module without stubs
    """Import ``onnx_tf.backend``, mended, with ``prepare(model).export_graph(folder)``.

    ``prepare`` checks operators, as ``check_operators`` does, instead of the whole file: that
    is the business of verification, and onnx's checker cannot take more than 2 GB.
    """
    from tasks.onnxtf import compat

    compat.install()
    import onnx_tf.backend
    from onnx.backend.base import Backend
    from onnx_tf.common import handler_helper  # noqa: F401 - imports every handler

    from tasks.onnxtf import (  # noqa: F401 - each enters its operators into the table
        arithmetic,
        convolution,
        estimators,
        networks,
        pooling,
        recurrent,
        registry,
        resizing,
        shaping,
        trees,
    )
    from tasks.onnxtf.module import GraphModule

    registry.enter_all()
    onnx_tf.backend.BackendTFModule = GraphModule
    Backend.prepare = classmethod(_prepare)
    return onnx_tf.backend


def _prepare(cls: Any, model: Any, /, device: str = "CPU", **given: object) -> None:  # noqa: ANN401, ARG001
    _tidy(model)
    check_operators(model)


def _tidy(model: Any) -> None:  # noqa: ANN401 - a ModelProto
    """Unfold the model's own functions, and write ONNX's own domain in its one usual way."""
    if model.functions:
        from onnx.inliner import inline_local_functions

        model.CopyFrom(inline_local_functions(model))
    for each in (*model.opset_import, *nodes_of(model.graph)):
        if each.domain == "ai.onnx":
            each.domain = ""
