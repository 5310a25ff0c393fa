"""Where the trees of a scikit-learn model split, and the floats beside a place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tasks.runners.sklearn_files import Estimator

Floats: TypeAlias = "NDArray[np.floating[Any]]"
Keys: TypeAlias = "NDArray[np.int64]"


class Splits(NamedTuple):
    """Splits of a model, one at each position."""

    features: NDArray[np.intp]
    thresholds: NDArray[np.float64]
    compares: np.dtype[Any]
    """In which type the model compares: scikit-learn's trees round their input to float32."""


def splits_of(estimator: Estimator) -> Splits | None:
    """Return every different split of a tree or an ensemble of trees; None for another model."""
    if hasattr(estimator, "_predictors"):  # histogram gradient boosting: no public way to them
        found = {
            (int(node["feature_idx"]), float(node["num_threshold"]))
            for predictors in estimator._predictors  # noqa: SLF001
            for predictor in predictors
            for node in predictor.nodes
            if not node["is_leaf"] and not node["is_categorical"]
        }
        return _splits(found, np.float64)
    found = set(_of_trees(estimator))
    return _splits(found, np.float32)


def _splits(found: set[tuple[int, float]], compares: type[np.floating[Any]]) -> Splits | None:
    if not found:
        return None
    features, thresholds = zip(*sorted(found), strict=True)
    return Splits(np.asarray(features), np.asarray(thresholds), np.dtype(compares))


def _of_trees(estimator: Estimator) -> Iterator[tuple[int, float]]:
    if hasattr(estimator, "tree_"):
        tree = estimator.tree_
        inner = tree.children_left != tree.children_right
        yield from zip(tree.feature[inner].tolist(), tree.threshold[inner].tolist(), strict=True)
        return
    members = np.ravel(np.asarray(getattr(estimator, "estimators_", []), dtype=object))
    columns = getattr(estimator, "estimators_features_", [None] * len(members))
    for member, chosen in zip(members, columns, strict=True):
        for feature, threshold in _of_trees(member):
            yield (feature if chosen is None else int(chosen[feature])), threshold


def to_keys(values: Floats) -> Keys:
    """Return whole numbers in the floats' order, one apart where the floats are neighbours."""
    whole = np.int32 if values.dtype == np.float32 else np.int64
    bits = values.view(whole).astype(np.int64)
    least = np.int64(np.iinfo(whole).min)
    return np.where(bits < 0, least - bits, bits)


def from_keys(keys: Keys, dtype: np.dtype[Any]) -> Floats:
    """Return the floats of ``to_keys``."""
    whole = np.int32 if dtype == np.float32 else np.int64
    least = np.int64(np.iinfo(whole).min)
    return np.where(keys < 0, least - keys, keys).astype(whole).view(dtype)


def last_below(
    low: Floats, high: Floats, goes_left: Callable[[Floats], NDArray[np.bool_]]
) -> Floats:
    """Return the last float, between ``low`` and ``high``, that still goes left.

    Args:
        low: They go left.
        high: They do not.
        goes_left: Says so of values of the same shape; once false, false for all above.
    """
    left, right = to_keys(low), to_keys(high)
    while (right - left > 1).any():
        middle = left + (right - left) // 2
        go = goes_left(from_keys(middle, low.dtype))
        left, right = np.where(go, middle, left), np.where(go, right, middle)
    return from_keys(left, low.dtype)
