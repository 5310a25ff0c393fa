"""What an ONNX node says of the layer that it came from."""

from __future__ import annotations

import ast
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCOPES = "pkg.torch.onnx.name_scopes"
"""Source: torch/onnx/_internal/exporter/_core.py, which writes the modules from outside in."""


def layer_of(node: Any, layers: Sequence[str]) -> str:  # noqa: ANN401 - onnx.NodeProto
    """Return the layer that a node's metadata or its name tells, or nothing.

    Args:
        node: The node.
        layers: The source's own names of its layers.
    """
    for each in node.metadata_props:
        if each.key == _SCOPES:
            with suppress(ValueError, SyntaxError):
                scopes = [str(scope) for scope in ast.literal_eval(each.value)]
                return next((scope for scope in reversed(scopes[:-1]) if scope), "")
    # TorchScript: /layer1/layer1.0/conv1/Conv; tf2onnx: model/conv1_conv/Conv2D
    parts = [part for name in (node.name, *node.output) for part in name.split("/") if part]
    known = set(layers)
    path = [part for part in node.name.split("/") if part][:-1]
    for length in range(len(path), 0, -1):
        joined = _joined(path[:length])
        if joined in known:
            return joined
    return next((part for part in reversed(parts) if part in known), "")


def _joined(path: Sequence[str]) -> str:
    """Write TorchScript's scopes as torch does: ``layer1``, ``layer1.0``, ``conv1``."""
    name = ""
    for part in path:
        name = part if part.startswith(f"{name}.") else f"{name}.{part}".lstrip(".")
    return name
