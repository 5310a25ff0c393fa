"""Let an ONNX file answer a few rows at other levels, on other devices, by ONNX's own rules."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.arrays import load_arrays
from tasks.domain.comparison import compare_probe
from tasks.domain.diagnosis import Optimisation
from tasks.domain.errors import ConfigurationError, ReleaseError
from tasks.domain.matrix import Cell
from tasks.domain.noise import Held
from tasks.domain.parity import HeldTo
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.runners.onnxruntime_runner import MODEL, PROVIDERS, OnnxruntimeRunner, run_session, short
from tasks.steps.answer import answer_probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

_ROWS, _ROWS_OF_LARGE = 4, 2
_LARGE_BYTES = 262_144
"""Input of a row from which on a cell answers two rows of a probe instead of four."""
LARGEST_BYTES = 20_000_000
"""Files up to which it is asked; what is larger is not even read for it."""
LARGEST_COST = 2e8
"""Multiplications up to which ONNX's reference evaluator, which is plain numpy, is asked."""
REFERENCE = "ONNX reference evaluator"

_WRONG_THERE = {"SVMClassifier"}
"""Operators that the evaluator of onnx 1.23 answers wrongly: on scikit-learn's SVC, whose answers
ONNX Runtime repeats, it gives other probabilities (measured; docs/parity/stages.md)."""


class CellRequest(Value):
    """Which file answers what, and in which way."""

    recipe: Recipe
    model: Path
    """Its folder."""
    probes: tuple[str, ...]
    inputs: Path
    """Folder of ``<probe>.npz``."""
    answers: Path
    """Folder of the source's answers, likewise."""
    held: dict[str, dict[str, HeldTo]] = {}
    """By probe and output: what the comparison held the numbers to; else the profile's."""
    waived: frozenset[tuple[str, str]] = frozenset()
    """Probe and output of what may differ, since the recipe waives it."""
    level: Optimisation = "all"
    device: Literal["cpu", "cuda"] = "cpu"


def rows_of(recipe: Recipe) -> int:
    """Return how many rows of each probe a cell answers."""
    sizes = [
        prod(dim for dim in each.shape if isinstance(dim, int)) for each in recipe.signature.inputs
    ]
    return _ROWS_OF_LARGE if 4 * sum(sizes) > _LARGE_BYTES else _ROWS


def answer_in_runtime(request: CellRequest) -> Cell:
    """Compare what ONNX Runtime answers at this level on this device.

    Raises:
        ConfigurationError: The device is asked for and is not there.
    """
    cell = Cell(
        runtime="ONNX Runtime",
        level=request.level,
        provider=request.device.upper(),
        passed=False,
        words="",
    )
    recipe, where = request.recipe, f"{request.recipe.name}: {cell}"
    try:
        runner = OnnxruntimeRunner.load(recipe, request.model, request.device, request.level)
        return _compared(cell, request, lambda inputs: answer_probe(runner, inputs, where, recipe))
    except ConfigurationError:
        raise
    except ReleaseError as error:
        return cell.model_copy(update={"words": str(error)})


def missing_provider(request: CellRequest) -> Cell:
    """Say why CUDA is not run for a recipe that does not ask for it."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    reason = (
        f"the recipe's device is '{request.recipe.device}'"
        if PROVIDERS["cuda"] in available
        else f"onnxruntime here has no {PROVIDERS['cuda']} (installed: {', '.join(available)})"
    )
    return Cell(
        runtime="ONNX Runtime",
        level="all",
        provider="CUDA",
        passed=None,
        words=f"not run: {reason}",
    )


def answer_by_reference(request: CellRequest) -> Cell:
    """Compare what ONNX's own reference evaluator answers, where the model is small.

    An operator that it lacks, or on which it fails, says nothing of the model.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    cell = Cell(runtime=REFERENCE, passed=None, words="")
    size = sum(path.stat().st_size for path in request.model.iterdir())
    if size > LARGEST_BYTES:
        words = f"not run: {size / 1e6:,.0f} MB (at most {LARGEST_BYTES / 1e6:.0f} MB are)"
        return cell.model_copy(update={"words": words})
    proto = onnx.load(request.model / MODEL)
    if wrong := sorted({node.op_type for node in proto.graph.node} & _WRONG_THERE):
        words = f"not run: it is known to answer {wrong[0]} wrongly"
        return cell.model_copy(update={"words": words})
    cost = cost_of(proto, rows_of(request.recipe) * len(request.probes))
    if cost > LARGEST_COST:
        words = f"not run: {cost:.1e} multiplications (at most {LARGEST_COST:.0e} are)"
        return cell.model_copy(update={"words": words})
    try:
        session = ReferenceEvaluator(proto)
        return _compared(cell, request, lambda inputs: _evaluated(session, inputs))
    except Exception as error:  # noqa: BLE001 - whatever it lacks, it is said in its words
        words = f"not run: it cannot: {type(error).__name__}: {short(error, 200)}"
        return cell.model_copy(update={"words": words})


def _evaluated(session: Any, inputs: Arrays) -> Arrays:  # noqa: ANN401 - a ReferenceEvaluator
    class Outputs:
        def get_outputs(self) -> list[Any]:
            return [type("Name", (), {"name": name}) for name in session.output_names]

        def run(self, names: list[str], feed: Arrays) -> Any:  # noqa: ANN401
            return session.run(names, feed)

    return run_session(Outputs(), inputs)


def _compared(cell: Cell, request: CellRequest, answer: Callable[[Arrays], Arrays]) -> Cell:
    outputs, profile = request.recipe.signature.outputs, request.recipe.parity.profile
    most, wrong, budgets, rows = rows_of(request.recipe), [], [0.0], 0
    for name in request.probes:
        inputs, reference = (
            {key: each[:most] for key, each in load_arrays(folder / f"{name}.npz").items()}
            for folder in (request.inputs, request.answers)
        )
        held = Held(_first(request.held.get(name, {}), most))
        compared = compare_probe(name, outputs, reference, answer(inputs), profile, held)
        rows += compared.rows
        wrong += [
            (f"{name}/{each.name}: {each.reason}", each.faults)
            for each in compared.outputs
            if each.reason and (name, each.name) not in request.waived
        ]
        budgets += [each.errors.budget for each in compared.outputs if each.errors]
    words = "; ".join(said for said, _ in wrong)
    return cell.model_copy(
        update={
            "passed": not wrong,
            "words": words or f"equal on {rows} {'row' if rows == 1 else 'rows'}",
            "faults": tuple(dict.fromkeys(kind for _, kinds in wrong for kind in kinds)),
            "budget": max(budgets),
        }
    )


def _first(held: dict[str, HeldTo], rows: int) -> dict[str, HeldTo]:
    """Return what the first rows are held to."""
    return {
        name: each.model_copy(update={"unjudged": tuple(i for i in each.unjudged if i < rows)})
        for name, each in held.items()
    }


def cost_of(model: Any, rows: int) -> float:  # noqa: ANN401 - onnx.ModelProto
    """Estimate how many multiplications ``rows`` rows take; every node counts a thousand.

    What has no shape counts as one number a row; so does every node of a tree.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph if model.ByteSize() < 2**31 else None
    graph = inferred or model.graph
    shapes = {
        each.name: [dim.dim_value or 1 for dim in each.type.tensor_type.shape.dim]
        for each in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes |= {each.name: list(each.dims) for each in graph.initializer}
    total = 0.0
    for node in graph.node:
        sizes = [_size(shapes.get(name, [])) for name in node.output if name]
        total += 1000 + rows * max(sizes, default=1.0) * _factor(node, shapes)
        total += rows * sum(len(each.ints) + len(each.floats) for each in node.attribute)
    return total


def _factor(node: Any, shapes: dict[str, list[int]]) -> float:  # noqa: ANN401
    """Return how many multiplications one element of the node's output takes."""
    if node.op_type in {"Conv", "ConvTranspose"} and len(node.input) > 1:
        return _size(shapes.get(node.input[1], [])[1:])
    if node.op_type in {"MatMul", "Gemm"}:
        return float((shapes.get(node.input[0]) or [1])[-1])
    if node.op_type in {"LSTM", "GRU", "RNN", "Loop", "Scan", "If"}:
        return 10_000.0
    return 1.0


def _size(shape: list[int]) -> float:
    size = 1.0
    for dim in shape:
        size *= dim
    return size
