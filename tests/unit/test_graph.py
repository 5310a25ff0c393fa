"""The picture of a graph: small ones whole, large ones folded, nothing overlapping or unescaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tasks.graph.drawing import draw
from tasks.graph.folding import FEW, fold
from tasks.graph.layout import lay_out
from tasks.graph.ops import ENTRY, Kind, Op, Panel
from tasks.graph.reading import read_ops
from tasks.steps.draw_graph import DrawGraphRequest, draw_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

HOSTILE = '<script>alert("1")</script> & more'


def chain(*titles: str, first: int = 0) -> list[Op]:
    """Return operators that each take the result of the one before."""
    return [Op(title, (first + i - 1,)) for i, title in enumerate(titles)]


def residual_net(blocks: int) -> list[Op]:
    """Return an input, ``blocks`` equal residual blocks, and an output."""
    ops = [Op("image", (), Kind.INPUT)]
    for _ in range(blocks):
        start = len(ops) - 1
        ops.append(Op("Conv", (start,), Kind.WEIGHTS, shape="8", weights=10))
        ops.append(Op("Relu", (start + 1,), Kind.ACTIVATION, shape="8"))
        ops.append(Op("Conv", (start + 2,), Kind.WEIGHTS, shape="8", weights=10))
        ops.append(Op("Add", (start, start + 3), shape="8"))
        ops.append(Op("Relu", (start + 4,), Kind.ACTIVATION, shape="8"))
    return [*ops, Op("scores", (len(ops) - 1,), Kind.OUTPUT)]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if "text" in element.tag]


def test_a_small_graph_is_drawn_operator_by_operator() -> None:
    ops = [Op("image", (), Kind.INPUT), *chain("Conv", "Relu", "Flatten", first=1)]

    (group,) = fold(ops)

    (panel,) = group.panels
    assert [box.rows[0].text for box in panel.boxes] == ["image", "Conv", "Relu", "Flatten"]
    assert [box.sources for box in panel.boxes] == [(), (0,), (1,), (2,)]


def test_blocks_that_repeat_are_drawn_once_with_their_number() -> None:
    groups = fold(residual_net(16))

    assert [group.times for group in groups] == [1, 16, 1]
    (block,) = groups[1].panels
    assert [[row.text for row in box.rows] for box in block.boxes] == [
        ["Conv + Relu", "Conv"],
        ["Add + Relu"],
    ]
    assert block.boxes[1].sources == (ENTRY, 0)
    assert groups[1].weights == 16 * 20


def test_blocks_of_another_shape_are_not_counted_as_the_same() -> None:
    ops = residual_net(8)
    ops[26:] = [Op(op.title, op.sources, op.kind, op.detail, "16", op.weights) for op in ops[26:]]

    assert [group.times for group in fold(ops)] == [1, 5, 3, 1]


def test_a_series_of_different_parts_repeats_too() -> None:
    ops = residual_net(12)
    for i, op in enumerate(ops):
        if op.title == "Add" and (i // 5) % 2:
            ops[i] = Op("Mul", op.sources, shape="8")

    groups = fold(ops)

    assert [(len(group.panels), group.times) for group in groups] == [(1, 1), (2, 6), (1, 1)]


def test_operators_without_a_branch_share_a_box() -> None:
    names = [f"Op{i}" for i in range(FEW)]
    ops = [Op("image", (), Kind.INPUT), *chain(*names, first=1)]

    head, run = fold(ops)

    assert len(head.panels[0].boxes) == len(run.panels[0].boxes) == 1
    rows = [row.text for row in run.panels[0].boxes[0].rows]
    assert (rows[0], rows[7], rows[-1]) == ("Op0", f"… {FEW - 14} more lines …", f"Op{FEW - 1}")


def test_what_is_too_tangled_is_counted() -> None:
    """Every operator takes the results of all before it: there is no cut, and no chain."""
    ops = [Op("x", (), Kind.INPUT), *(Op("Concat", tuple(range(i))) for i in range(1, 300))]

    groups = fold(ops)

    boxes = [box for group in groups for panel in group.panels for box in panel.boxes]
    assert len(boxes) <= 60
    assert any("299 operators with many branches" in box.rows[0].text for box in boxes)


def test_a_very_long_graph_is_shortened_in_its_middle() -> None:
    ops = [Op("x", (), Kind.INPUT)]
    for i in range(100):
        start = len(ops) - 1
        ops += [Op(f"Op{i}", (start,)), Op(f"Other{i}", (start,))]
        ops.append(Op("Add", (start + 1, start + 2)))

    groups = fold(ops)

    rows = [row.text for g in groups for p in g.panels for box in p.boxes for row in box.rows]
    assert len(rows) < 70
    assert {"Op0", "Op99"} <= set(rows)
    assert any("parts more" in text for text in rows)


@st.composite
def graphs(make: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    sizes = make(
        st.lists(st.tuples(st.floats(10, 200), st.floats(10, 90)), min_size=1, max_size=14)
    )
    pairs = [(i, j) for j in range(len(sizes)) for i in range(j)]
    edges = make(st.lists(st.sampled_from(pairs), unique=True, max_size=30)) if pairs else []
    return sizes, edges


@given(graphs())
def test_no_box_overlaps_another_and_every_line_runs_downwards(
    graph: tuple[list[tuple[float, float]], list[tuple[int, int]]],
) -> None:
    sizes, edges = graph

    place = lay_out(sizes, edges)

    boxes = [(*corner, *size) for corner, size in zip(place.corners, sizes, strict=True)]
    for i, (x, y, width, height) in enumerate(boxes):
        assert -0.01 <= x <= place.width - width + 0.01
        assert 0 <= y <= place.height - height + 0.01
        for other_x, other_y, other_width, other_height in boxes[i + 1 :]:
            beside = x + width <= other_x + 0.01 or other_x + other_width <= x + 0.01
            assert beside or y + height <= other_y or other_y + other_height <= y
    for (upper, lower), line in zip(edges, place.lines, strict=True):
        heights = [y for _, y in line]
        assert heights == sorted(heights)
        assert heights[0] == boxes[upper][1] + boxes[upper][3]
        assert heights[-1] == boxes[lower][1]


def test_every_word_is_escaped_and_the_picture_is_told_in_words() -> None:
    groups = fold([Op(HOSTILE, (), Kind.INPUT, shape=HOSTILE), Op("Relu", (0,), detail=HOSTILE)])

    svg = draw(groups, HOSTILE, HOSTILE)

    assert "<script" not in svg
    root = ET.fromstring(svg)
    assert root.get("aria-label") == HOSTILE
    assert HOSTILE in texts(svg)
    assert not re.search(r"href|src=|url\(|@import", svg)
    assert "prefers-color-scheme: dark" in svg


def model_of(nodes: Sequence[Any], outputs: Sequence[str] = ("y",), **weights: Any) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_operators_are_read_with_what_tells_them_apart() -> None:
    weights = np.zeros((3, 1, 3, 3), np.float32)
    conv = helper.make_node(
        "Conv", ["x", "w"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, group=3
    )

    ops = read_ops(model_of([conv, helper.make_node("Relu", ["a"], ["y"])], w=weights))

    image, read, relu, out = ops
    assert (image.title, image.kind, image.detail) == ("x", Kind.INPUT, "float32[batch, 3, 8, 8]")
    assert (read.title, read.detail) == ("Conv", "3×3 /2 depthwise")  # noqa: RUF001
    assert (read.shape, read.weights, read.sources) == ("batch×3×4×4", 27, (0,))  # noqa: RUF001
    assert (relu.kind, relu.sources) == (Kind.ACTIVATION, (1,))
    assert (out.kind, out.sources) == (Kind.OUTPUT, (2,))


def test_constants_are_the_weights_of_who_takes_them() -> None:
    """The numbers reach the Add through a Constant and a Neg; the target of a Reshape is none."""
    value = numpy_helper.from_array(np.ones((3, 8, 8), np.float32))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=value),
        helper.make_node("Neg", ["c"], ["n"]),
        helper.make_node("Add", ["x", "n"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["y"]),
    ]

    ops = read_ops(model_of(nodes, shape=np.array([-1, 192], np.int64)))

    assert [(op.title, op.weights) for op in ops[1:3]] == [("Add", 192), ("Reshape", 0)]
    assert len(ops) == 4


def test_what_a_subgraph_takes_from_outside_is_an_edge() -> None:
    inner = helper.make_graph(
        [helper.make_node("Neg", ["a"], ["b"])],
        "inner",
        [],
        [helper.make_tensor_value_info("b", 1, None)],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner),
    ]

    ops = read_ops(model_of(nodes, yes=np.ones((), bool)))

    assert (ops[2].title, ops[2].detail, ops[2].sources) == ("If", "(2 nodes inside)", (1,))


def test_a_file_is_drawn(tmp_path: Path) -> None:
    onnx.save(model_of([helper.make_node("Relu", ["x"], ["y"])]), tmp_path / "model.onnx")
    target = tmp_path / "graph.svg"

    reply = draw_graph(DrawGraphRequest(name="net", model=tmp_path, target=target))

    assert reply.about == "1 operator, 0 weights"
    assert {"net: the ONNX graph", "Relu", "x float32[batch, 3, 8, 8]"} <= set(
        texts(target.read_text())
    )


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 500])
def test_a_graph_of_any_size_is_drawn(count: int) -> None:
    ops = [Op("x", (), Kind.INPUT), *(Op("Add", (i, i // 2)) for i in range(count))]

    groups = fold(ops)

    assert all(isinstance(panel, Panel) for group in groups for panel in group.panels)
    assert ET.fromstring(draw(groups, "t", "a")).tag.endswith("svg")
