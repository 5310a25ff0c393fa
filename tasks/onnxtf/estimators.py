"""The other operators of ``ai.onnx.ml`` that fitted scikit-learn pipelines are made of.

Source: https://onnx.ai/onnx/operators/index.html#ai-onnx-ml
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tasks.onnxtf.registry import MACHINE_LEARNING, Node, Tensor, operator


def labels_of(node: Node) -> Tensor:
    """Return the classes of a classifier, int64 or string."""
    for name in ("classlabels_int64s", "classlabels_ints"):
        if integers := node.attributes.get(name):
            return tf.constant(integers, tf.int64)
    return tf.constant(node.attributes["classlabels_strings"], tf.string)


def transform(node: Node, scores: Tensor) -> Tensor:
    """Bring scores to the scale that the node asks for."""
    how = node.text("post_transform", "NONE")
    known = {"NONE": tf.identity, "SOFTMAX": tf.nn.softmax, "LOGISTIC": tf.sigmoid}
    if how not in known:
        raise node.cannot(f"post_transform '{how}'")
    return known[how](scores)


def one_score(
    node: Node, score: Tensor, labels: Tensor, *, least: float, complement: bool
) -> list[Tensor]:
    """Answer two classes from the score of the second, shape (rows,), as ONNX Runtime does.

    Args:
        node: The classifier.
        score: The higher, the likelier is the second class.
        labels: The two classes.
        least: Above this score, the answer is the second class.
        complement: Whether the first class scores ``1 - score``, or else ``-score``.
    """
    how = node.text("post_transform", "NONE")
    if how == "LOGISTIC" and least == 0:
        pair = [tf.sigmoid(-score), tf.sigmoid(score)]
    elif how == "NONE":
        pair = [1 - score if complement else -score, score]
    else:
        raise node.cannot(f"one score for two classes and post_transform '{how}'")
    best = tf.cast(score > least, tf.int64)
    return [tf.gather(labels, best), tf.stack(pair, axis=-1)]


def _floats(node: Node) -> Tensor:
    return tf.cast(node[0], tf.float32)


@operator("LinearClassifier", 1, domain=MACHINE_LEARNING)
def classify(node: Node) -> list[Tensor]:
    """Answer the best class of each row, and the score of each class."""
    labels, x = labels_of(node), _floats(node)
    rows = len(node.attributes["coefficients"]) // x.shape[-1]
    weights = np.asarray(node.attributes["coefficients"], np.float32).reshape(rows, -1)
    scores = tf.matmul(x, weights, transpose_b=True)
    scores += np.asarray(node.attributes.get("intercepts") or [0.0], np.float32)
    if rows == 1 and labels.shape[0] == 2:  # noqa: PLR2004 - one score for two classes
        return one_score(node, scores[:, 0], labels, least=0.0, complement=True)
    return [tf.gather(labels, tf.argmax(scores, -1)), transform(node, scores)]


@operator("LinearRegressor", 1, domain=MACHINE_LEARNING)
def regress(node: Node) -> list[Tensor]:
    """Answer the targets of each row."""
    weights = np.asarray(node.attributes["coefficients"], np.float32)
    scores = tf.matmul(_floats(node), weights.reshape(node.attributes.get("targets", 1), -1).T)
    scores += np.asarray(node.attributes.get("intercepts") or [0.0], np.float32)
    return [transform(node, scores)]


@operator("Scaler", 1, domain=MACHINE_LEARNING)
def scale(node: Node) -> list[Tensor]:
    """Subtract each column's offset, then multiply by its scale."""
    offset, factor = (np.asarray(node.attributes[each], np.float32) for each in ("offset", "scale"))
    return [(_floats(node) - offset) * factor]


@operator("Normalizer", 1, domain=MACHINE_LEARNING)
def normalise(node: Node) -> list[Tensor]:
    """Divide each row by its norm; a row of norm 0 stays."""
    x, how = _floats(node), node.text("norm", "MAX")
    norm = {
        "MAX": lambda: tf.reduce_max(x, -1, keepdims=True),
        "L1": lambda: tf.reduce_sum(tf.abs(x), -1, keepdims=True),
        "L2": lambda: tf.sqrt(tf.reduce_sum(x * x, -1, keepdims=True)),
    }[how]()
    return [tf.where(norm == 0, x, x / tf.where(norm == 0, tf.ones_like(norm), norm))]


@operator("ArrayFeatureExtractor", 1, domain=MACHINE_LEARNING)
def pick(node: Node) -> list[Tensor]:
    """Pick columns of the last axis by number."""
    x = node[0][None, :] if node[0].shape.rank == 1 else node[0]
    return [tf.gather(x, tf.reshape(node[1], [-1]), axis=-1)]


@operator("LabelEncoder", 2, 4, domain=MACHINE_LEARNING)
def encode(node: Node) -> list[Tensor]:
    """Exchange each element for the value that stands beside it in a list."""
    keys, values = _listed(node, "keys"), _listed(node, "values")
    kind = {"s": ("string", "_Unused"), "i": ("int64", -1), "f": ("float", -0.0)}
    default = _listed(node, "default", optional=True)
    if default is None:
        suffix = next(each for each in node.attributes if each.startswith("values_"))[7]
        name, fallback = kind.get(suffix, ("float", -0.0))
        default = tf.constant(node.attributes.get(f"default_{name}", fallback), values.dtype)
    equal = node[0][..., None] == keys
    if keys.dtype.is_floating:
        equal |= tf.math.is_nan(node[0])[..., None] & tf.math.is_nan(keys)
    found = tf.gather(values, tf.argmax(tf.cast(equal, tf.int8), -1))
    return [tf.where(tf.reduce_any(equal, -1), found, tf.reshape(default, []))]


def _listed(node: Node, name: str, *, optional: bool = False) -> Any:  # noqa: ANN401
    from onnx import numpy_helper

    kinds = {"strings": tf.string, "int64s": tf.int64, "floats": tf.float32}
    for suffix, dtype in kinds.items():
        if (values := node.attributes.get(f"{name}_{suffix}")) is not None:
            return tf.constant(values, dtype)
    if (tensor := node.attributes.get(f"{name}_tensor")) is not None:
        return tf.constant(numpy_helper.to_array(tensor))
    if optional:
        return None
    raise node.cannot(f"{name} of an unknown type")


@operator("OneHotEncoder", 1, domain=MACHINE_LEARNING)
def encode_one_hot(node: Node) -> list[Tensor]:
    """Append an axis that is 1 at the place of each element's category."""
    if not node.attributes.get("zeros", 1):
        raise node.cannot("an error for unknown categories")
    x = node[0]
    if strings := node.attributes.get("cats_strings"):
        categories = tf.constant(strings, tf.string)
    else:
        categories, x = tf.constant(node.attributes["cats_int64s"], tf.int64), tf.cast(x, tf.int64)
    return [tf.cast(x[..., None] == categories, tf.float32)]


@operator("Imputer", 1, domain=MACHINE_LEARNING)
def impute(node: Node) -> list[Tensor]:
    """Exchange a column's missing values for the one that is given."""
    x, integers = node[0], node.attributes.get("imputed_value_int64s")
    kind = "int64" if integers else "float"
    values = tf.constant(integers or node.attributes["imputed_value_floats"], x.dtype)
    missing = node.attributes.get(f"replaced_value_{kind}", 0)
    same = tf.math.is_nan(x) if missing != missing else x == tf.constant(missing, x.dtype)  # noqa: PLR0124 - NaN
    return [tf.where(same, values, x)]


@operator("Binarizer", 1, domain=MACHINE_LEARNING)
def binarise(node: Node) -> list[Tensor]:
    """Answer 1 above the threshold, else 0."""
    return [tf.cast(node[0] > node.attributes.get("threshold", 0.0), node[0].dtype)]


@operator("FeatureVectorizer", 1, domain=MACHINE_LEARNING)
def concatenate(node: Node) -> list[Tensor]:
    """Put the columns of all inputs side by side."""
    return [tf.concat([tf.cast(node[i], tf.float32) for i in range(len(node))], axis=-1)]
