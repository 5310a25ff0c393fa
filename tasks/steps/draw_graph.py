"""Draw an ONNX model's graph."""

from __future__ import annotations

from pathlib import Path

from tasks.domain.value import Value
from tasks.graph.drawing import draw
from tasks.graph.folding import FEW, fold
from tasks.graph.ops import Kind
from tasks.graph.reading import read_ops
from tasks.runners.onnxruntime_runner import MODEL
from tasks.steps.onnx_file import parse


class DrawGraphRequest(Value):
    """Which model to draw."""

    name: str
    model: Path
    """The model's folder."""
    target: Path
    """The SVG file to write."""


class DrawGraphReply(Value):
    """What was drawn."""

    about: str
    """The picture in one sentence."""


def draw_graph(request: DrawGraphRequest) -> DrawGraphReply:
    """Write the picture; a large graph is folded, see ``tasks.graph.folding``.

    Raises:
        VerificationError: The file is no ONNX model.
    """
    ops = read_ops(parse(f"{request.name}: graph", request.model / MODEL))
    inner = [op for op in ops if op.kind not in {Kind.INPUT, Kind.OUTPUT}]
    weights = sum(op.weights for op in ops)
    about = f"{len(inner):,} operator{'s' if len(inner) != 1 else ''}, {weights:,} weights"
    if len(ops) > FEW:
        about += "; parts that repeat are drawn once, with their number"
    request.target.write_text(draw(fold(ops), f"{request.name}: the ONNX graph", about))
    return DrawGraphReply(about=about)
