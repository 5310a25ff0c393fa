"""Name the culprit of a wrong model, cut it out, and write what reproduces it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt

from tasks.domain.diagnosis import Culprit
from tasks.domain.profiles import PROFILES
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.runners.onnxruntime_runner import MODEL
from tasks.tracing.agreement import RightTensors, close, distance
from tasks.tracing.cut import cut_out, innocent_without, names_of
from tasks.tracing.graph import TracedGraph, node_name, op_type
from tasks.tracing.graph_names import layer_of
from tasks.tracing.recording import TracedRows, rows_of
from tasks.tracing.reproducer import write_reproducer
from tasks.tracing.search import Search, Suspect

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.parity import Tolerance
    from tasks.tracing.cut import Cut

    Arrays = dict[str, NDArray[Any]]

GRAPH = "graph outputs"
"""Stands for a node where the graph's list of outputs itself is wrong."""


class FindRequest(Value):
    """The wrong graph, its tensors, and those of the right side."""

    recipe: Recipe
    model: Path
    """The folder of the wrong ``model.onnx``, or of the one that ONNX Runtime rewrote."""
    wrong: Path
    """The wrong graph's trace."""
    right: Path
    """The right side's."""
    by_name: bool
    """Whether equal names mean equal tensors: both sides are ONNX."""
    runs_cut: bool = True
    """Whether ONNX Runtime shows the fault: not where TensorFlow is wrong."""
    optimisation: Literal["off", "basic", "all"] = "off"
    reference: Path
    """The source's answers to the probe."""
    rows: tuple[int, ...]
    folder: Path
    """Empty folder for the reproducer."""


class Located(Value):
    """What was found, and where it can be seen."""

    culprit: Culprit | None
    nodes: NonNegativeInt = 0
    """How many nodes the cut-out graph has; 0 where none could be cut."""
    folder: Path | None = None
    """The reproducer; absent where none shows the fault."""
    words: str
    """The finding, or why there is none."""


def find_culprit(request: FindRequest) -> Located:
    """Find the first wrong node, cut it out and write its reproducer."""
    tolerance = PROFILES[request.recipe.parity.profile].base
    wrong, right = TracedRows(request.wrong), TracedRows(request.right)
    graph = TracedGraph(request.model / MODEL, wrong.by_name())
    answers = rows_of(request.reference, request.rows)
    if broken := _outputs_fault(graph, request.recipe, answers, tolerance):
        return Located(culprit=broken, words=broken.words)
    if wrong.trace.failed:
        return _refused(graph, wrong, RightTensors(right, tolerance))
    search = Search(graph, RightTensors(right, tolerance), answers, by_name=request.by_name)
    suspect = search.find()
    if suspect is None:
        return Located(culprit=None, words="no node differs on the rows that were traced")
    return _described(_narrowed(graph, suspect, tolerance), graph, tolerance, request)


def _narrowed(graph: TracedGraph, suspect: Suspect, tolerance: Tolerance) -> Suspect:
    if suspect.expected is None or len(suspect.region) == 1:
        return suspect
    node = innocent_without(graph, suspect.region, suspect.tensor, suspect.expected, tolerance)
    if node is not None and suspect.reason == "differs first":
        suspect.node, suspect.reason = node, "is one too many: without it the answer is right"
    return suspect


def _described(
    suspect: Suspect, graph: TracedGraph, tolerance: Tolerance, request: FindRequest
) -> Located:
    expected, got = suspect.expected, graph.values.get(suspect.tensor)
    error = distance(expected, got) if expected is not None and got is not None else None
    words = _words(suspect, error, expected, got)
    culprit = Culprit(
        node=node_name(suspect.node),
        op_type=op_type(suspect.node),
        tensor=suspect.tensor,
        layer=suspect.layer,
        max_abs=error,
        words=words,
    )
    cut: Cut | None = None
    if expected is not None and request.runs_cut:
        with suppress(Exception):  # the node is named all the same
            cut = cut_out(graph, suspect.region, suspect.tensor, expected, tolerance)
    if cut is None:
        return Located(culprit=culprit, words=f"{words}; no smaller graph shows it by itself")
    write_reproducer(request.folder, cut, words, tolerance)
    count = len(cut.model.graph.node)
    return Located(culprit=culprit, nodes=count, folder=request.folder, words=words)


def _words(
    suspect: Suspect,
    error: float | None,
    expected: NDArray[Any] | None,
    got: NDArray[Any] | None,
) -> str:
    layer = f" of layer {suspect.layer}" if suspect.layer else ""
    head = f"{op_type(suspect.node)} '{node_name(suspect.node)}'{layer} {suspect.reason}"
    if len(suspect.region) > 1:
        head += f" (among {names_of(suspect.region[:6])})"
    if error is not None and expected is not None:
        import numpy as np

        largest = float(np.abs(expected.astype(np.float64)).max(initial=0))
        return f"{head}: '{suspect.tensor}' is off by up to {error:.3g}, of at most {largest:.3g}"
    if expected is not None and got is not None and expected.shape != got.shape:
        return f"{head}: '{suspect.tensor}' has shape {got.shape}, not {expected.shape}"
    return f"{head}: '{suspect.tensor}' differs"


def _outputs_fault(
    graph: TracedGraph, recipe: Recipe, answers: Arrays, tolerance: Tolerance
) -> Culprit | None:
    """Return what is wrong with the list of outputs itself: names, dtypes, what is not there."""
    declared = {spec.name: spec for spec in recipe.signature.outputs}
    for name in declared:
        if name not in graph.outputs:
            same = [t for t, v in graph.values.items()
                    if t in graph.maker and v.shape == answers[name].shape
                    and close(answers[name], v, tolerance)]  # fmt: skip
            made = name if name in graph.maker else next(iter(same), "")
            also = f"; '{made}' holds what it should" if made else ""
            return _graph_fault(graph, made, f"the graph has no output '{name}'{also}")
    for name in graph.outputs:
        if name not in declared:
            words = f"the graph has an output '{name}' that is not declared"
            return _graph_fault(graph, name, words)
    for name in declared:
        got, expected = graph.values.get(name), answers[name]
        if got is not None and got.dtype.kind not in "UO" and got.dtype != expected.dtype:
            words = f"output '{name}' is {got.dtype}, not {expected.dtype}"
            return _graph_fault(graph, name, words)
    return None


def _graph_fault(graph: TracedGraph, tensor: str, words: str) -> Culprit:
    node = graph.maker.get(tensor)
    if node is None:
        return Culprit(node=GRAPH, op_type="graph", tensor=tensor, words=words)
    return Culprit(
        node=node_name(node), op_type=op_type(node), tensor=tensor,
        layer=layer_of(node, ()), words=words,
    )  # fmt: skip


def _refused(graph: TracedGraph, wrong: TracedRows, right: RightTensors) -> Located:
    """Name the node at which ONNX Runtime stops: the first that it could not answer."""
    layers = [known.tensor.layer for known in right.made]
    words = wrong.trace.failed
    named = [n for n in graph.nodes if n.name and n.name == wrong.trace.failed_node]
    unanswered = [n for n in graph.nodes if any(t and t not in graph.values for t in n.output)]
    node = next(iter(named + unanswered), None)
    if node is None:
        return Located(culprit=None, words=f"the model does not run: {words}")
    said = f"{op_type(node)} '{node_name(node)}' does not run: {words}"
    culprit = Culprit(
        node=node_name(node), op_type=op_type(node), tensor=node.output[0],
        layer=layer_of(node, layers), words=said,
    )  # fmt: skip
    return Located(culprit=culprit, words=said)
