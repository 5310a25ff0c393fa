"""Every tensor of an ONNX graph, as ONNX Runtime makes it without rewriting the graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.domain.value import Value
from tasks.runners.onnxruntime_runner import MODEL, open_session, short
from tasks.tracing.recording import Trace, TracedTensor, rows_of, write_trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

_FAILED_NODE = re.compile(r"Name:\s*'([^']*)'|node with name '([^']*)'|Node:\s*(\S+)\s")
_CHUNK = 400
"""Tensors asked for at a time: their names only, memory is bounded by the few rows."""


class TraceOnnxRequest(Value):
    """Which model makes what of which rows."""

    where: str
    """The first words of an error."""
    model: Path
    """The folder of ``model.onnx``."""
    optimisation: Literal["off", "basic", "all"] = "off"
    """How far ONNX Runtime rewrites the graph before it is traced, node by node, as it stands."""
    device: Literal["cpu", "cuda"] = "cpu"
    probe: Path
    rows: tuple[int, ...]
    folder: Path
    """Empty folder for the trace, and for the rewritten graph."""


def trace_onnx(request: TraceOnnxRequest) -> Trace:
    """Write every tensor that the graph makes of the rows.

    Where ONNX Runtime refuses the model or its rows, what could be made is there, with its words.
    """
    model = request.model / MODEL
    inputs = rows_of(request.probe, request.rows)
    try:
        if request.optimisation != "off":
            model = rewritten(model, request.optimisation, request.folder)
        made = run_all(model, inputs, request.where, request.device)
        found = [(TracedTensor(name=name), array) for name, array in (inputs | made).items()]
        return write_trace(request.folder, found)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        found = [(TracedTensor(name=name), array) for name, array in inputs.items()]
        found += list(_as_far_as_it_goes(model, inputs, request))
        words = short(error)
        match = _FAILED_NODE.search(words)
        node = next((each for each in match.groups() if each), "") if match else ""
        return write_trace(request.folder, found, words, node)


def rewritten(model: Path, optimisation: str, folder: Path) -> Path:
    """Let ONNX Runtime write the graph that it would run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_BASIC if optimisation == "basic" else levels.ORT_ENABLE_ALL
    )
    options.optimized_model_filepath = str(folder / MODEL)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    return folder / MODEL


def run_all(model: Path, inputs: Mapping[str, NDArray[Any]], where: str, device: Any) -> Arrays:  # noqa: ANN401
    """Return every tensor of the graph by name, in the order of its nodes."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    names = [name for node in graph.node for name in node.output if name]
    opened = _with_outputs(model, names)
    try:
        session = open_session(where, opened, device, "off")
        feed = {
            each.name: inputs[each.name].astype(object)
            if inputs[each.name].dtype.kind == "U"
            else inputs[each.name]
            for each in session.get_inputs()
        }
        made: Arrays = {}
        for start in range(0, len(names), _CHUNK):
            some = names[start : start + _CHUNK]
            made |= zip(some, session.run(some, feed), strict=True)
    finally:
        opened.unlink(missing_ok=True)
    import numpy as np

    return {name: np.asarray(made[name]) for name in names if not isinstance(made[name], list)}


def _with_outputs(model: Path, names: list[str]) -> Path:
    """Write the graph with all these tensors as outputs, beside its weights."""
    import onnx

    proto = onnx.load(model, load_external_data=False)
    there = {each.name for each in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    path = model.with_name("every-tensor.onnx")
    onnx.save(proto, path)
    return path


def _as_far_as_it_goes(
    model: Path, inputs: Arrays, request: TraceOnnxRequest
) -> Iterator[tuple[TracedTensor, NDArray[Any]]]:
    """Yield what the graph makes before it fails: tensor after tensor by halving."""
    import onnx

    if not model.is_file():
        return
    graph = onnx.load(model, load_external_data=False).graph
    low, high = 0, len(graph.node)
    best: Arrays = {}
    while low < high:
        middle = (low + high + 1) // 2
        try:
            best = _first_nodes(model, middle, inputs, request)
            low = middle
        except Exception:  # noqa: BLE001 - it fails somewhere before
            high = middle - 1
    for name, array in best.items():
        yield TracedTensor(name=name), array


def _first_nodes(model: Path, count: int, inputs: Arrays, request: TraceOnnxRequest) -> Arrays:
    import onnx

    proto = onnx.load(model, load_external_data=False)
    del proto.graph.node[count:]
    del proto.graph.output[:]
    first = proto.graph.node[0].output[0]
    proto.graph.output.append(onnx.ValueInfoProto(name=first))
    path = model.with_name("first-nodes.onnx")
    onnx.save(proto, path)
    try:
        return run_all(path, inputs, request.where, request.device)
    finally:
        path.unlink(missing_ok=True)
