"""The picture as SVG: self-contained, readable in light and dark, each word escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from tasks.graph.layout import GAP_Y, Layout, lay_out
from tasks.graph.ops import ENTRY, TIMES, Box, Group, Kind, Panel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.graph.layout import Point

_CHAR = 6.9
"""Width of a character at 12 px, on the safe side for the fonts named below."""
_SMALL_CHAR = 6.3
_ROW = 19.0
_PAD = 11.0
_LEAST_WIDTH = 88.0
_LONGEST_TEXT = 52
_DOT = 8.0
_MARGIN = 16.0
_HEAD = 60.0
_FRAME = 14.0
_BADGE = 74.0

STYLE = """
.onnx-graph { --paper: #fbfbf9; --card: #ffffff; --ink: #1d2327; --soft: #5b666e; --line: #aab4bb;
  --frame: #eef1f3; --weights: #2f6fb3; --weights-soft: #e6f0fa; --act: #8a5cb8; --end: #1a7f4b;
  --end-soft: #e3f4ea; }
@media (prefers-color-scheme: dark) { .onnx-graph { --paper: #14181b; --card: #1c2226;
  --ink: #e6eaed; --soft: #9aa6ae; --line: #66737b; --frame: #20282d; --weights: #6aa9ea;
  --weights-soft: #182a3d; --act: #bd95e6; --end: #5ccb8f; --end-soft: #173527; } }
.onnx-graph text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
  sans-serif; fill: var(--ink); }
.onnx-graph .soft { fill: var(--soft); font-size: 11px; }
.onnx-graph .strong { font-weight: 600; }
.onnx-graph .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 4px;
  stroke-linejoin: round; }
.onnx-graph .in-frame .halo { stroke: var(--frame); }
.onnx-graph .paper { fill: var(--paper); }
.onnx-graph .box { fill: var(--card); stroke: var(--line); stroke-width: 1.2; }
.onnx-graph .box.weights { fill: var(--weights-soft); stroke: var(--weights); }
.onnx-graph .box.activation { stroke: var(--act); }
.onnx-graph .box.input, .onnx-graph .box.output { fill: var(--end-soft); stroke: var(--end); }
.onnx-graph .frame { fill: var(--frame); stroke: var(--line); stroke-dasharray: 5 4; }
.onnx-graph .edge { fill: none; stroke: var(--soft); stroke-width: 1.3; }
.onnx-graph .tip { fill: var(--soft); }
.onnx-graph .times { fill: var(--ink); font-size: 16px; font-weight: 700; }
""".strip()


class _Piece(NamedTuple):
    """A part of the picture: its marks, its size, and where its way in and out lie."""

    marks: list[str]
    width: float
    height: float
    enter: float
    leave: float
    shape: str
    """Of what leaves it."""


def draw(groups: Sequence[Group], title: str, about: str) -> str:
    """Return the whole picture.

    Args:
        groups: Its parts, from top to bottom.
        title: What it shows, for its head.
        about: The picture in one sentence, for those who do not see it.
    """
    stack = _stack([_group(group) for group in groups])
    width = max(stack.width, len(title) * _CHAR, len(about) * _SMALL_CHAR) + 2 * _MARGIN
    height = _HEAD + stack.height + _MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}"'
    said = f'viewBox="0 0 {width:.0f} {height:.0f}" aria-label="{escape(about)}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="onnx-graph" role="img" {size} {said}>',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" {size}/>',
            f'<text class="strong" x="{_MARGIN}" y="26">{escape(title)}</text>',
            f'<text class="soft" x="{_MARGIN}" y="43">{escape(about)}</text>',
            *_moved(stack.marks, (width - stack.width) / 2, _HEAD),
            "</svg>\n",
        )
    )


def _stack(pieces: Sequence[_Piece]) -> _Piece:
    """Put pieces below each other, the ways in above one another, and join them by lines."""
    left = max(piece.enter for piece in pieces)
    right = max(piece.width - piece.enter for piece in pieces)
    marks: list[str] = []
    y = leave = 0.0
    for i, piece in enumerate(pieces):
        x = left - piece.enter
        if i:
            marks += _line([(leave, y), (left, y + GAP_Y)], pieces[i - 1].shape)
            y += GAP_Y
        marks += _moved(piece.marks, x, y)
        leave, y = x + piece.leave, y + piece.height
    return _Piece(marks, left + right, y, left, leave, pieces[-1].shape)


def _moved(marks: Sequence[str], x: float, y: float) -> list[str]:
    return [f'<g transform="translate({x:.1f} {y:.1f})">', *marks, "</g>"]


def _group(group: Group) -> _Piece:
    inner = _stack([_panel(panel) for panel in group.panels])
    if group.times == 1:
        return inner
    width, height = inner.width + 2 * _FRAME + _BADGE, inner.height + 2 * _FRAME
    x, y = inner.width + 2 * _FRAME + 2, height / 2
    marks = [
        '<g class="in-frame">',
        f'<rect class="frame" width="{width:.1f}" height="{height:.1f}" rx="12"/>',
        *_moved(inner.marks, _FRAME, _FRAME),
        f'<text class="times" x="{x:.1f}" y="{y:.1f}">{TIMES} {group.times}</text>',
    ]
    if group.weights:
        marks.append(
            f'<text class="soft" x="{x:.1f}" y="{y + 17:.1f}">{_count(group.weights)}</text>'
        )
    enter, leave = inner.enter + _FRAME, inner.leave + _FRAME
    return _Piece([*marks, "</g>"], width, height, enter, leave, inner.shape)


def _panel(panel: Panel) -> _Piece:
    enters = any(ENTRY in box.sources for box in panel.boxes)
    dot = enters and (len(panel.boxes) > 1)
    sizes = [_size(box) for box in panel.boxes]
    shift = 1 if dot else 0
    edges = [
        (source + shift, i + shift)
        for i, box in enumerate(panel.boxes)
        for source in box.sources
        if source >= 0 or dot
    ]
    place = lay_out([(_DOT, 0.0)] * shift + sizes, edges)
    marks: list[str] = []
    said: set[int] = set()
    for (source, _), line in zip(edges, place.lines, strict=True):
        box = panel.boxes[source - shift] if source >= shift else None
        label = box.shape if box and source not in said else ""
        said.add(source)
        marks += _line(line, label)
    for box, size, corner in zip(panel.boxes, sizes, place.corners[shift:], strict=True):
        marks += _box(box, size, corner)
    enter, leave = _ends(place, sizes)
    return _Piece(marks, place.width, place.height, enter, leave, panel.boxes[-1].shape)


def _ends(place: Layout, sizes: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return where the line from above meets the panel, and where the one downwards begins."""
    first = place.corners[0][0] + (_DOT if len(place.corners) > len(sizes) else sizes[0][0]) / 2
    return first, place.corners[-1][0] + sizes[-1][0] / 2


def _size(box: Box) -> tuple[float, float]:
    several = len(box.rows) > 1
    shapes = max((len(row.shape) for row in box.rows), default=0) * _SMALL_CHAR if several else 0
    text = max(min(len(row.text), _LONGEST_TEXT) for row in box.rows) * _CHAR
    notes = len(_note(box)) * _SMALL_CHAR
    width = max(text + (shapes + 18 if shapes else 0), notes) + 2 * _PAD
    lines = len(box.rows) + bool(_note(box))
    return max(width, _LEAST_WIDTH), lines * _ROW + 10


def _note(box: Box) -> str:
    return f"{_count(box.weights)} weights" if box.weights else ""


def _box(box: Box, size: tuple[float, float], corner: tuple[float, float]) -> Iterator[str]:
    kinds = [row.kind for row in box.rows]
    kind = Kind.WEIGHTS if Kind.WEIGHTS in kinds else kinds[0]
    (x, y), (width, height) = corner, size
    yield (
        f'<rect class="box {kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" rx="8"/>'
    )
    for i, row in enumerate(box.rows):
        line = y + 18 + i * _ROW
        text = row.text if len(row.text) <= _LONGEST_TEXT else f"{row.text[: _LONGEST_TEXT - 1]}…"
        yield f'<text x="{x + _PAD:.1f}" y="{line:.1f}">{escape(text)}</text>'
        if len(box.rows) > 1 and row.shape:
            yield (
                f'<text class="soft" x="{x + width - _PAD:.1f}" y="{line:.1f}" '
                f'text-anchor="end">{escape(row.shape)}</text>'
            )
    if note := _note(box):
        line = y + 18 + len(box.rows) * _ROW
        yield f'<text class="soft" x="{x + _PAD:.1f}" y="{line:.1f}">{note}</text>'


def _line(points: Sequence[Point], label: str) -> Iterator[str]:
    """Yield an edge with its tip, and what flows along it beside its beginning."""
    (x, y), *rest = points
    path, (at_x, at_y) = [f"M{x:.1f} {y:.1f}"], (x, y)
    for i, (to_x, to_y) in enumerate(rest):
        middle = (at_y + to_y) / 2
        straight = i % 2 == 1 or abs(at_x - to_x) < 1  # every second one only passes a layer
        bend = f"C{at_x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} "
        path.append(f"{'L' if straight else bend}{to_x:.1f} {to_y:.1f}")
        at_x, at_y = to_x, to_y
    yield f'<path class="edge" d="{" ".join(path)}"/>'
    yield f'<path class="tip" d="M{at_x:.1f} {at_y:.1f}l-4 -7h8z"/>'
    if label:
        left = points[1][0] > x + 1  # the line leaves to the right
        place = f'x="{x - 7:.1f}" text-anchor="end"' if left else f'x="{x + 7:.1f}"'
        yield f'<text class="soft halo" {place} y="{y + 16:.1f}">{escape(label)}</text>'


def _count(number: int) -> str:
    """Write a number of weights in three digits."""
    for least, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= least:
            return f"{number / least:.3g} {unit}"
    return str(number)
