"""Where boxes and lines lie: layers from top to bottom, few crossings, lines as straight as can be.

The method is Sugiyama's, in its simplest form: longest-path layers, places for long lines in
the layers that they pass, order by the mean of the neighbours, then positions as near to the
neighbours as the widths allow.

Source: K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical
system structures", IEEE Trans. SMC 11 (1981).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    Size: TypeAlias = tuple[float, float]
    Edge: TypeAlias = tuple[int, int]
    Point: TypeAlias = tuple[float, float]

GAP_X = 26.0
GAP_Y = 34.0
_LANE = 10.0
"""Width that a line takes where it passes a layer."""
_SWEEPS = 8


@dataclass(frozen=True)
class Layout:
    """Where everything lies; the left top corner is 0, 0."""

    width: float
    height: float
    corners: tuple[Point, ...]
    """The left top corner of each box."""
    lines: tuple[tuple[Point, ...], ...]
    """For each edge: the points that its line passes, from the lower side of a box downwards."""


def lay_out(sizes: Sequence[Size], edges: Sequence[Edge]) -> Layout:
    """Place boxes in layers, so that every edge runs downwards.

    Args:
        sizes: Width and height of each box.
        edges: Pairs of boxes; the first must come before the second in ``sizes``.
    """
    grid = _Grid(sizes, edges)
    grid.sort()
    centers = grid.positions()
    tops = grid.tops()
    left = min(center - width / 2 for center, width in zip(centers, grid.widths, strict=True))
    right = max(center + width / 2 for center, width in zip(centers, grid.widths, strict=True))
    corners = tuple(
        (centers[i] - width / 2 - left, tops[grid.layer[i]]) for i, (width, _) in enumerate(sizes)
    )
    lines = []
    for path in grid.paths:
        start = (centers[path[0]] - left, tops[grid.layer[path[0]]] + sizes[path[0]][1])
        points = [start]
        for place in path[1:-1]:
            top = tops[grid.layer[place]]
            x = centers[place] - left
            points += [(x, top), (x, top + grid.heights[grid.layer[place]])]
        points.append((centers[path[-1]] - left, tops[grid.layer[path[-1]]]))
        lines.append(tuple(points))
    height = tops[-1] + grid.heights[-1]
    return Layout(right - left, height, corners, tuple(lines))


class _Grid:
    """Boxes and the places of long lines, layer by layer."""

    def __init__(self, sizes: Sequence[Size], edges: Sequence[Edge]) -> None:
        self.layer = _layers(len(sizes), edges)
        self.widths = [width for width, _ in sizes]
        self.paths: list[list[int]] = []
        for upper, lower in edges:
            path = [upper]
            for between in range(self.layer[upper] + 1, self.layer[lower]):
                path.append(len(self.widths))
                self.widths.append(_LANE)
                self.layer.append(between)
            self.paths.append([*path, lower])
        self.rows: list[list[int]] = [[] for _ in range(max(self.layer) + 1)]
        for place, layer in enumerate(self.layer):
            self.rows[layer].append(place)
        self.heights = [
            max((sizes[place][1] for place in row if place < len(sizes)), default=0.0)
            for row in self.rows
        ]
        self.above: list[list[int]] = [[] for _ in self.widths]
        self.below: list[list[int]] = [[] for _ in self.widths]
        for path in self.paths:
            for upper, lower in pairwise(path):
                self.below[upper].append(lower)
                self.above[lower].append(upper)

    def tops(self) -> list[float]:
        tops = [0.0]
        for height in self.heights[:-1]:
            tops.append(tops[-1] + height + GAP_Y)
        return tops

    def sort(self) -> None:
        """Order each layer so that few lines cross."""
        best, fewest = [list(row) for row in self.rows], self._crossings()
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            neighbours = self.above if down else self.below
            for row in self.rows if down else reversed(self.rows):
                self._sort_row(row, neighbours)
            if (crossings := self._crossings()) < fewest:
                best, fewest = [list(row) for row in self.rows], crossings
        self.rows = best

    def _sort_row(self, row: list[int], neighbours: Sequence[Sequence[int]]) -> None:
        rank = {place: i for each in self.rows for i, place in enumerate(each)}

        def wish(place: int) -> float:
            near = [rank[each] for each in neighbours[place]]
            return sum(near) / len(near) if near else rank[place]

        row.sort(key=wish)

    def _crossings(self) -> int:
        rank = {place: i for row in self.rows for i, place in enumerate(row)}
        total = 0
        for row in self.rows:
            ends = [rank[each] for place in row for each in sorted(self.below[place], key=rank.get)]  # type: ignore[arg-type]
            total += sum(left > right for i, left in enumerate(ends) for right in ends[i + 1 :])
        return total

    def positions(self) -> list[float]:
        """Return the middle of each place, near to the middles of its neighbours."""
        centers = [0.0] * len(self.widths)
        for row in self.rows:
            self._set_row(row, [0.0] * len(row), centers)
        for sweep in range(2 * _SWEEPS):
            down = sweep % 2 == 0
            for row in self.rows if down else reversed(self.rows):
                wishes = []
                for place in row:
                    near = (self.above if down else self.below)[place] or [place]
                    wishes.append(sum(centers[each] for each in near) / len(near))
                self._set_row(row, wishes, centers)
        return centers

    def _set_row(self, row: Sequence[int], wishes: Sequence[float], centers: list[float]) -> None:
        """Place a row as near to its wishes as its widths allow (least squares)."""
        offsets, offset = [], 0.0
        for i, place in enumerate(row):
            if i:
                offset += (self.widths[row[i - 1]] + self.widths[place]) / 2 + GAP_X
            offsets.append(offset)
        # pool adjacent violators: once the least distances are taken off, only order is left
        pools: list[tuple[float, int]] = []
        for wish, each in zip(wishes, offsets, strict=True):
            mean, size = wish - each, 1
            while pools and pools[-1][0] > mean:
                other, others = pools.pop()
                mean = (mean * size + other * others) / (size + others)
                size += others
            pools.append((mean, size))
        level = [mean for mean, size in pools for _ in range(size)]
        for place, base, each in zip(row, level, offsets, strict=True):
            centers[place] = base + each


def _layers(count: int, edges: Sequence[Edge]) -> list[int]:
    """Return the layer of each box: as high as its edges allow, a source as low."""
    layer = [0] * count
    for upper, lower in sorted(edges, key=lambda edge: edge[1]):
        layer[lower] = max(layer[lower], layer[upper] + 1)
    has_above = {lower for _, lower in edges}
    for place in range(count):
        below = [layer[lower] for upper, lower in edges if upper == place]
        if place not in has_above and below:
            layer[place] = min(below) - 1
    lowest = min(layer)
    return [each - lowest for each in layer]
