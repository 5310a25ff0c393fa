"""What each step of a scikit-learn pipeline answers to a few rows."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.tracing.recording import Trace, TracedTensor, rows_of, write_trace
from tasks.tracing.torch_trace import TraceSourceRequest  # noqa: TC001 - the child reads it

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_METHODS = ("transform", "decision_function", "predict_proba", "predict_log_proba", "predict")


def trace_sklearn(request: TraceSourceRequest) -> Trace:
    """Write the answers of every step, then the fitted arrays.

    Raises:
        ReleaseError: The estimator does not load.
    """
    from tasks.runners.sklearn_files import load_estimator, only_input

    estimator = load_estimator(request.recipe, request.model)
    table = rows_of(request.probe, request.rows)[only_input(request.recipe).name]
    rows = table.astype(object) if table.dtype.kind == "U" else table
    answers = list(_answers(estimator, rows, ""))
    return write_trace(request.folder, [*answers, *_fitted(estimator, "")])


def _answers(
    estimator: Any,  # noqa: ANN401
    rows: Any,  # noqa: ANN401
    layer: str,
) -> Iterator[tuple[TracedTensor, NDArray[Any]]]:
    if hasattr(estimator, "steps"):
        yield from _steps(estimator, rows, layer)
        return
    for name, part, columns in getattr(estimator, "transformers_", ()):
        if hasattr(part, "transform"):
            with suppress(Exception):  # a column by name, of a table that has none
                yield from _answers(part, rows[:, columns], f"{layer}.{name}".lstrip("."))
    for method in _METHODS:
        if hasattr(estimator, method):
            with suppress(AttributeError, NotImplementedError):
                answer = getattr(estimator, method)(rows)
                array = np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)
                yield TracedTensor(name=method, layer=layer), array


def _steps(
    pipeline: Any,  # noqa: ANN401
    rows: Any,  # noqa: ANN401
    layer: str,
) -> Iterator[tuple[TracedTensor, NDArray[Any]]]:
    for name, step in pipeline.steps:
        if step is None or step == "passthrough":
            continue
        yield from _answers(step, rows, f"{layer}.{name}".lstrip("."))
        if hasattr(step, "transform"):
            rows = step.transform(rows)


def _fitted(estimator: Any, layer: str) -> Iterator[tuple[TracedTensor, NDArray[Any]]]:  # noqa: ANN401
    for name, step in getattr(estimator, "steps", ()):
        yield from _fitted(step, f"{layer}.{name}".lstrip("."))
    for name, value in vars(estimator).items() if hasattr(estimator, "__dict__") else ():
        if name.endswith("_") and isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            yield TracedTensor(name=f"parameter {name}", layer=layer), value
