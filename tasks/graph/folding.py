"""How a graph of hundreds of operators becomes a picture of some tens of boxes.

A *cut* is an operator that every way from input to output passes through. Between two cuts
lies a part that one tensor enters and one leaves: a residual block, an attention, or a
single operator. Parts that repeat are drawn once, with their number; operators that follow
each other without a branch share a box; an activation shares the line of what it follows.
"""

from __future__ import annotations

from collections import Counter
from itertools import count, pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tasks.graph.ops import ENTRY, TIMES, Box, Group, Kind, Op, Panel, Row, consumers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Key: TypeAlias = tuple[object, ...]

FEW = 24
"""Up to this many operators, inputs and outputs, each gets a box of its own."""
_MOST_BOXES = 60
_WAYS = ((True, 40), (False, 40), (False, 25), (False, 12))
"""The ways to fold, the finest first: whether parts must be of one shape to count as equal, and
how many boxes a part may have before its operators are only counted."""
_LONGEST_PERIOD = 8
_MOST_ROWS = 14


def fold(ops: Sequence[Op]) -> tuple[Group, ...]:
    """Return the picture's parts from top to bottom; the first holds the graph's inputs."""
    if len(ops) <= FEW:
        boxes = tuple(Box((_row(op),), op.sources, op.shape, op.weights) for op in ops)
        return (Group((Panel(boxes),), weights=sum(op.weights for op in ops)),)
    parts = _parts(ops)
    groups: tuple[Group, ...] = ()
    for with_shapes, branches in _WAYS:
        groups = tuple(_joined(_repeats(parts, with_shapes=with_shapes), branches))
        if _boxes(groups) <= _MOST_BOXES:
            return groups
    return _shortened(groups)


def _boxes(groups: Sequence[Group]) -> int:
    return sum(len(panel.boxes) for group in groups for panel in group.panels)


class _Part(NamedTuple):
    """The operators between two cuts, the second one included; sources count from its start."""

    ops: tuple[Op, ...]

    @property
    def straight(self) -> bool:
        return all(op.sources == (i - 1,) for i, op in enumerate(self.ops))

    def key(self, *, with_shapes: bool) -> Key:
        shape = self.ops[-1].shape if with_shapes else ""
        return (shape, *((op.title, op.detail, op.sources) for op in self.ops))


def _parts(ops: Sequence[Op]) -> list[_Part]:
    cuts = _cuts(ops)
    # an activation that follows a cut belongs to it: the part ends after the activation
    starts = [
        0,
        *(cut + 1 for cut in sorted(cuts) if cut + 1 not in cuts or not _follows(ops, cut + 1)),
    ]
    if starts[-1] != len(ops):
        starts.append(len(ops))
    return [
        _Part(tuple(_relative(op, start) for op in ops[start:end]))
        for start, end in pairwise(starts)
        if start < end
    ]


def _relative(op: Op, start: int) -> Op:
    sources = tuple(dict.fromkeys(max(each - start, ENTRY) for each in op.sources))
    return Op(op.title, sources, op.kind, op.detail, op.shape, op.weights)


def _cuts(ops: Sequence[Op]) -> set[int]:
    """Return the positions that no edge passes over, from a common source to a common end."""
    takers = consumers(ops)
    reach = max((i for i, op in enumerate(ops) if not op.sources), default=0)
    found = set()
    for position in range(len(ops)):
        if reach <= position:
            found.add(position)
        reach = max(reach, *takers[position]) if takers[position] else len(ops)
    return found


def _follows(ops: Sequence[Op], position: int) -> bool:
    """Whether it is an activation of the operator before it."""
    return ops[position].kind is Kind.ACTIVATION and ops[position].sources == (position - 1,)


class _Repeat(NamedTuple):
    parts: tuple[_Part, ...]
    times: int
    weights: int


def _repeats(parts: Sequence[_Part], *, with_shapes: bool) -> Iterator[_Repeat]:
    """Yield the parts in order, those that repeat (alone, or as a series) once."""
    keys = [part.key(with_shapes=with_shapes) for part in parts]
    start = 0
    while start < len(parts):
        period, times = _best_period(keys, start)
        length = period * times
        weights = sum(op.weights for part in parts[start : start + length] for op in part.ops)
        yield _Repeat(tuple(parts[start : start + period]), times, weights)
        start += length


def _best_period(keys: Sequence[Key], start: int) -> tuple[int, int]:
    """Return the series that covers most from ``start`` on, the shortest of equals."""
    best = (1, 1)
    for period in range(1, _LONGEST_PERIOD + 1):
        first = keys[start : start + period]
        times = next(
            n
            for n in count(1)
            if keys[start + n * period : start + (n + 1) * period] != first or not first
        )
        if times > 1 and times * period > best[0] * best[1]:
            best = (period, times)
    return best


def _joined(repeats: Iterator[_Repeat], branches: int) -> Iterator[Group]:
    """Yield groups; straight parts that follow each other share a panel of one box."""
    straight: list[_Part] = []
    for each in repeats:
        if each.times == 1 and each.parts[0].straight:
            straight += each.parts
            continue
        yield from _straight_groups(straight)
        straight = []
        panels = tuple(_panels(each.parts, branches))
        yield Group(panels, each.times, each.weights)
    yield from _straight_groups(straight)


def _panels(parts: Sequence[_Part], branches: int) -> Iterator[Panel]:
    straight: list[_Part] = []
    for part in parts:
        if part.straight:
            straight.append(part)
            continue
        yield from _straight_panels(straight)
        straight = []
        panel = _panel(part)
        yield panel if len(panel.boxes) <= branches else Panel((_summary(part.ops),))
    yield from _straight_panels(straight)


def _straight_groups(parts: Sequence[_Part]) -> Iterator[Group]:
    for panel in _straight_panels(parts):
        yield Group((panel,), 1, panel.weights)


def _straight_panels(parts: Sequence[_Part]) -> Iterator[Panel]:
    """Yield one panel for the inputs and outputs each, and for what lies between them."""
    run: list[Op] = []
    for op in (op for part in parts for op in part.ops):
        if op.kind in {Kind.INPUT, Kind.OUTPUT}:
            if run:
                yield Panel((_box(run, (ENTRY,)),))
            yield Panel((_box([op], op.sources),))
            run = []
        else:
            run.append(op)
    if run:
        yield Panel((_box(run, (ENTRY,)),))


def _panel(part: _Part) -> Panel:
    """Return a part with its branches, the operators of each in one box."""
    takers = consumers(part.ops)
    home: dict[int, int] = {ENTRY: ENTRY}
    chains: list[list[int]] = []
    for i, op in enumerate(part.ops):
        last = op.sources[0] if len(op.sources) == 1 else ENTRY
        joins = last != ENTRY and takers[last] == [i] and part.ops[last].kind is not Kind.INPUT
        if joins and op.kind is not Kind.OUTPUT:
            home[i] = home[last]
            chains[home[i]].append(i)
        else:
            home[i] = len(chains)
            chains.append([i])
    sources = (part.ops[chain[0]].sources for chain in chains)
    return Panel(
        tuple(
            _box([part.ops[i] for i in chain], tuple(dict.fromkeys(home[each] for each in above)))
            for chain, above in zip(chains, sources, strict=True)
        )
    )


def _box(ops: Sequence[Op], sources: tuple[int, ...]) -> Box:
    rows: list[Row] = []
    for op in ops:
        if rows and op.kind is Kind.ACTIVATION:
            last = rows.pop()
            rows.append(Row(f"{last.text} + {_row(op).text}", op.shape, last.kind))
        else:
            rows.append(_row(op))
    if len(rows) > _MOST_ROWS:
        half = _MOST_ROWS // 2
        more = Row(f"… {len(rows) - 2 * half} more lines …", "", Kind.OTHER)
        rows = [*rows[:half], more, *rows[-half:]]
    return Box(tuple(rows), sources, ops[-1].shape, sum(op.weights for op in ops))


def _row(op: Op) -> Row:
    return Row(f"{op.title} {op.detail}".strip(), op.shape, op.kind)


def _summary(ops: Sequence[Op]) -> Box:
    """Return one box that counts operators, for what is too tangled to be drawn."""
    counted = Counter(op.title for op in ops if op.kind not in {Kind.INPUT, Kind.OUTPUT})
    rows = [
        Row(f"{title} {TIMES} {number}", "", Kind.OTHER)
        for title, number in counted.most_common(_MOST_ROWS - 2)
    ]
    head = Row(f"{sum(counted.values()):,} operators with many branches", "", Kind.WEIGHTS)
    weights = sum(op.weights for op in ops)
    return Box((head, *rows), (ENTRY,), ops[-1].shape, weights)


def _shortened(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Keep the beginning and the end, and say what lies between."""
    half, kept = _MOST_BOXES // 2, 0
    head: list[Group] = []
    for group in groups:
        kept += _boxes([group])
        if kept > half:
            break
        head.append(group)
    tail: list[Group] = []
    kept = 0
    for group in reversed(groups[len(head) :]):
        kept += _boxes([group])
        if kept > half:
            break
        tail.insert(0, group)
    left_out = groups[len(head) : len(groups) - len(tail)]
    weights = sum(group.weights for group in left_out)
    text = f"… {sum(group.times for group in left_out):,} parts more …"
    box = Box((Row(text, "", Kind.OTHER),), (ENTRY,), "", weights)
    return (*head, Group((Panel((box,)),), 1, weights), *tail)
