"""Training scikit-learn estimators on the data sets that come with scikit-learn."""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import TYPE_CHECKING, cast

import numpy as np

from tasks.arrays import save_arrays
from tasks.child import report_progress
from tasks.domain.errors import AcquisitionError, ConfigurationError
from tasks.domain.recipe import Recipe
from tasks.domain.sources import EstimatorStep, SklearnTraining
from tasks.runners.sklearn_files import (
    Estimator,
    check_signature,
    noting_warnings,
    only_input,
    save_estimator,
)
from tasks.sources import HELD_OUT, AcquireReply, AcquireRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REGRESSION = {"diabetes"}
_MOST_WORDS = 20


def acquire(request: AcquireRequest) -> AcquireReply:
    """Train the recipe's estimators, and keep the rows that training did not see.

    The rows are cast to the input's dtype before training, so that each threshold that a
    tree learns lies between two values that the input can take.

    Raises:
        ConfigurationError: The recipe names an estimator, parameter or shape that is not there.
        AcquisitionError: Training failed.
    """
    recipe = request.recipe
    source = cast("SklearnTraining", recipe.source)
    estimator = _assembled(recipe.name, source)
    seen, held_out, seen_truth, truth = _split(recipe, source)
    report_progress(0.1, f"training on {len(seen)} rows of {source.dataset}")
    notes = _fit(recipe.name, estimator, seen, seen_truth)
    check_signature(recipe, estimator)
    metric = "r2" if source.dataset in _REGRESSION else "accuracy"
    score = float(estimator.score(held_out, truth)) if hasattr(estimator, "score") else None
    save_estimator(estimator, request.folder)
    arrays = {only_input(recipe).name: held_out, "labels": truth}
    save_arrays(request.folder / HELD_OUT, arrays)
    return AcquireReply(metrics={} if score is None else {metric: score}, notes=notes)


def _assembled(model: str, source: SklearnTraining) -> Estimator:
    """Return the unfitted estimator, or a pipeline of them."""
    from sklearn.pipeline import make_pipeline

    steps = [
        _estimator(f"{model}: source.steps.{position}", step, source.seed)
        for position, step in enumerate(source.steps)
    ]
    try:
        return steps[0] if len(steps) == 1 else make_pipeline(*steps)
    except TypeError as error:
        raise ConfigurationError(f"{model}: source.steps: {error}") from error


def _estimator(where: str, step: EstimatorStep, seed: int) -> Estimator:
    kind = _estimator_class(where, step.estimator)
    known = list(inspect.signature(kind.__init__).parameters)[1:]
    for name in step.params:
        if name not in known:
            message = (
                f"{where}.params: {kind.__name__} has no parameter '{name}'{_nearest(name, known)}."
            )
            raise ConfigurationError(message)
    seeded = {"random_state": seed} if "random_state" in known else {}
    return kind(**(seeded | step.params))


def _estimator_class(where: str, path: str) -> type[Estimator]:
    """Return the estimator class at an import path below ``sklearn``, and nothing else."""
    from sklearn.base import BaseEstimator
    from sklearn.utils import all_estimators

    module_name, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except ImportError:
        found = None
    if inspect.isclass(found) and issubclass(found, BaseEstimator):
        return found
    public = {
        f"{'.'.join(part for part in each.__module__.split('.') if part[0] != '_')}.{title}"
        for title, each in all_estimators()
    }
    by_name = [each for each in public if each.rpartition(".")[2] == name]
    message = (
        f"{where}.estimator: scikit-learn has no estimator '{path}'"
        f"{_nearest(path, by_name or sorted(public))}."
    )
    raise ConfigurationError(message)


def _nearest(word: str, known: list[str]) -> str:
    """Write the known word that ``word`` was meant to be; failing that, a few that are known."""
    if found := difflib.get_close_matches(word, known, n=1):
        return f" (nearest: '{found[0]}')"
    return f" (expected one of: {', '.join(sorted(known)[:_MOST_WORDS])} …)"


def _split(recipe: Recipe, source: SklearnTraining) -> list[NDArray[np.generic]]:
    """Return rows to train on, rows held out, and the true answers of both."""
    import sklearn.datasets
    from sklearn.model_selection import train_test_split

    spec = only_input(recipe)
    if spec.dtype == "string":
        message = (
            f"{recipe.name}: signature.inputs.{spec.name}: the data set '{source.dataset}' "
            "holds numbers (expected float32 or float64, got string). Change the dtype."
        )
        raise ConfigurationError(message)
    rows, truth = getattr(sklearn.datasets, f"load_{source.dataset}")(return_X_y=True)
    if source.dataset not in _REGRESSION:
        truth = truth.astype(np.int64)
    parts: list[NDArray[np.generic]] = train_test_split(
        rows.astype(spec.dtype),
        truth,
        test_size=source.test_fraction,
        random_state=source.seed,
        stratify=None if source.dataset in _REGRESSION else truth,
    )
    return parts


def _fit(
    model: str,
    estimator: Estimator,
    rows: NDArray[np.generic],
    truth: NDArray[np.generic],
) -> tuple[str, ...]:
    from sklearn.utils._param_validation import InvalidParameterError

    try:
        _, notes = noting_warnings(lambda: estimator.fit(rows, truth))
    except InvalidParameterError as error:
        raise ConfigurationError(f"{model}: source.steps: {error}") from error
    except Exception as error:
        message = (
            f"{model}: training failed ({type(error).__name__}: {str(error)[:500]}). Check "
            "that the estimators and their parameters fit the data set."
        )
        raise AcquisitionError(message) from error
    return notes
