"""Tree ensembles: random forests, gradient boosting and single trees, as skl2onnx writes them.

All trees of all rows descend at once, one level at a time, by looking up the children of
where each stands. Source: https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleClassifier.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tasks.onnxtf.estimators import labels_of, one_score, transform
from tasks.onnxtf.registry import MACHINE_LEARNING, Node, Tensor, operator

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MODES = {
    "BRANCH_LEQ": tf.less_equal,
    "BRANCH_LT": tf.less,
    "BRANCH_GTE": tf.greater_equal,
    "BRANCH_GT": tf.greater,
    "BRANCH_EQ": tf.equal,
    "BRANCH_NEQ": tf.not_equal,
}


class _Forest:
    """The nodes of all trees in one row of numbers; a leaf is its own child."""

    def __init__(self, node: Node, kind: str) -> None:
        self._node = node
        trees, ids = self._integers("nodes_treeids"), self._integers("nodes_nodeids")
        self.place = {key: i for i, key in enumerate(zip(trees, ids, strict=True))}
        self.modes = [
            m.decode() if isinstance(m, bytes) else m for m in node.attributes["nodes_modes"]
        ]
        leaf = np.array([mode == "LEAF" for mode in self.modes])
        self.children = [
            np.array(
                [
                    i if leaf[i] else self.place[trees[i], c]
                    for i, c in enumerate(self._integers(name))
                ]
            )
            for name in ("nodes_truenodeids", "nodes_falsenodeids")
        ]
        self.features = self._integers("nodes_featureids")
        self.thresholds = self.floats("nodes_values")
        missing = node.attributes.get("nodes_missing_value_tracks_true") or [0] * len(leaf)
        self.missing_is_true = np.array(missing, bool)
        self.trees = len(set(trees))
        self.roots = self._roots()
        self.depth = self._depth()
        self._kind = kind

    def _integers(self, name: str) -> NDArray[np.int64]:
        return np.asarray(self._node.attributes[name], np.int64)

    def floats(self, name: str) -> NDArray[np.floating[Any]]:
        """Return an attribute of numbers: float32, or float64 where it is given as a tensor."""
        from onnx import numpy_helper

        if (tensor := self._node.attributes.get(f"{name}_as_tensor")) is not None:
            return np.asarray(numpy_helper.to_array(tensor))
        return np.asarray(self._node.attributes.get(name) or [], np.float32)

    def _roots(self) -> NDArray[np.int64]:
        inner = np.array([mode != "LEAF" for mode in self.modes])
        reached = np.concatenate([child[inner] for child in self.children])
        return np.setdiff1d(np.arange(len(self.modes)), reached)

    def _depth(self) -> int:
        """Return how many steps lead from the roots to the last leaf."""
        depth, front = -1, self.roots
        while front.size:
            inner = np.array([i for i in front if self.modes[i] != "LEAF"], np.int64)
            front = np.unique(np.concatenate([child[inner] for child in self.children]))
            depth += 1
        return depth

    def scores(self, columns: int) -> NDArray[np.floating[Any]]:
        """Return what each node adds to each column, shape (nodes, columns)."""
        weights = self.floats(f"{self._kind}_weights")
        scores = np.zeros((len(self.modes), columns), weights.dtype)
        names = (f"{self._kind}_{each}" for each in ("treeids", "nodeids", "ids"))
        for tree, node, column, weight in zip(*map(self._integers, names), weights, strict=True):
            scores[self.place[tree, node], column] += weight
        return scores

    def leaves(self, x: Tensor) -> Tensor:
        """Return where each row ends in each tree, shape (rows, trees), int64."""
        at = tf.tile(tf.constant(self.roots)[None, :], tf.stack([tf.shape(x)[0], 1]))
        kinds = sorted(set(self.modes) - {"LEAF"})
        for _ in range(self.depth):
            value = tf.gather(x, tf.gather(self.features, at), batch_dims=1)
            threshold = tf.gather(self.thresholds, at)
            true = tf.gather(self.missing_is_true, at) & tf.math.is_nan(value)
            for kind in kinds:
                holds = _MODES[kind](value, threshold)
                if len(kinds) > 1:
                    holds &= tf.gather(np.array([mode == kind for mode in self.modes]), at)
                true |= holds
            yes, no = (tf.gather(child, at) for child in self.children)
            at = tf.where(true, yes, no)
        return at


def _summed(node: Node, kind: str, columns: int) -> tuple[Tensor, _Forest]:
    forest = _Forest(node, kind)
    if unknown := set(forest.modes) - {"LEAF", *_MODES}:
        raise node.cannot(f"mode '{min(unknown)}'")
    x = tf.cast(node[0], forest.thresholds.dtype)
    scores = tf.gather(forest.scores(columns), forest.leaves(x))
    # summed in float64, as ONNX Runtime does for many trees, then rounded once
    return tf.reduce_sum(tf.cast(scores, tf.float64), 1), forest


@operator("TreeEnsembleClassifier", 1, 3, domain=MACHINE_LEARNING)
def classify(node: Node) -> list[Tensor]:
    """Answer the best class of each row, and the score of each class."""
    labels, given = labels_of(node), set(node.attributes["class_ids"])
    scores, forest = _summed(node, "class", labels.shape[0])
    base = forest.floats("base_values")
    if labels.shape[0] == 2 and len(given) == 1:  # noqa: PLR2004 - one score for two classes
        score = tf.cast(scores[:, min(given)] + (base[-1] if base.size else 0), tf.float32)
        positive = bool((forest.floats("class_weights") >= 0).all())
        least = 0.5 if positive else 0.0
        return one_score(node, score, labels, least=least, complement=positive)
    if labels.shape[0] == 2:  # noqa: PLR2004 - classes
        raise node.cannot("two classes of one score each, for which ONNX Runtime has no label")
    if base.size:
        scores += base
    scores = tf.cast(scores, tf.float32)
    return [tf.gather(labels, tf.argmax(scores, -1)), transform(node, scores)]


@operator("TreeEnsembleRegressor", 1, 3, domain=MACHINE_LEARNING)
def regress(node: Node) -> list[Tensor]:
    """Answer the targets of each row."""
    scores, forest = _summed(node, "target", node.attributes["n_targets"])
    how = node.text("aggregate_function", "SUM")
    if how not in {"SUM", "AVERAGE"}:
        raise node.cannot(f"aggregate_function '{how}'")
    if how == "AVERAGE":
        scores /= forest.trees
    base = forest.floats("base_values")
    if base.size:
        scores += base
    return [transform(node, tf.cast(scores, tf.float32))]
