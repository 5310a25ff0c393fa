"""Faults of a network for texts, and of scikit-learn's pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from tests.corpus.planting import (
    Fault,
    Net,
    Right,
    at,
    attribute,
    become,
    change,
    floats,
    inserted,
    label,
    last,
    read_another,
    stored,
    the,
    weight,
)

_RAW, _PASS = "raw export", "exporter's optimisation"


def _shuffled_gates(array: Any) -> Any:
    """Take torch's order of gates (i, f, g, o) for ONNX's (i, o, f, c)."""
    size = array.shape[1] // 4
    gates = [array[:, i * size : (i + 1) * size] for i in range(4)]
    return np.concatenate([gates[0], gates[2], gates[3], gates[1]], axis=1)


def _shuffle_lstm(net: Net) -> Right:
    node = the(net, "LSTM")
    for port in (1, 2, 3):
        change(node.input[port], _shuffled_gates, net)
    return {label(node)}


def _no_scale(net: Net) -> Right:
    node = the(net, "Mul")
    node.input[1] = next(each.name for each in net.graph.initializer if each.name == node.input[1])
    change(node.input[1], np.ones_like, net)
    return {label(node)}


def _transposed(kind: str, place: int, port: int) -> Any:
    return weight(kind, place, port, lambda w: w.T)


def _by_reciprocal(net: Net) -> Right:
    """Multiply by 1 / scale in float32, where scikit-learn divides in float64."""
    node = the(net, "Div")
    node.op_type = "Mul"
    scale = stored(net, node.input[1])
    array = numpy_helper.to_array(scale)
    rounded = (np.float32(1) / array.astype(np.float32)).astype(array.dtype)
    scale.CopyFrom(numpy_helper.from_array(rounded, scale.name))
    return {label(node)}


def _round_thresholds(values: Any) -> Any:
    return np.round(values, 2)


def _next_class(net: Net) -> Right:
    node = the(net, "TreeEnsembleClassifier")
    for each in node.attribute:
        if each.name == "classlabels_int64s":
            each.ints[:] = [i + 1 for i in each.ints]
    return {label(node)}


def _modes(net: Net) -> Right:
    node = the(net, "TreeEnsembleClassifier")
    for each in node.attribute:
        if each.name == "nodes_modes":
            each.strings[:] = [b"BRANCH_LT" if s == b"BRANCH_LEQ" else s for s in each.strings]
    return {label(node)}


def _faults(good: str, *rows: tuple[str, Any, Any, str]) -> tuple[Fault, ...]:
    return tuple(Fault(name, good, stage, plant, wild) for name, stage, plant, wild in rows)


TEXT = _faults(
    "text",
    ("epsilon-of-layer-norm", _RAW, attribute("LayerNormalization", 1, epsilon=1e-12),
     "1e-12 for BERT, 1e-5 for the rest"),
    ("softmax-over-the-queries", _RAW, attribute("Softmax", axis=1), "attention, transposed"),
    ("attention-not-scaled", _PASS, _no_scale, "1 / sqrt(d) lost in a fused attention"),
    ("gelu-exact", _RAW, attribute("Gelu", approximate="none"), "erf for tanh"),
    ("gates-shuffled", _PASS, _shuffle_lstm, "torch has i, f, g, o; ONNX has i, o, f, c"),
    ("projection-transposed", _PASS, _transposed("MatMul", 0, 1),
     "a square weight: every shape fits"),
    ("key-for-query", _PASS, read_another("MatMul", 0, 1, 1), "two weights of one name"),
    ("embedding-of-the-next-token", _RAW, weight("Gather", 0, 0, lambda w: np.roll(w, 1, 0)),
     "a vocabulary with one entry more"),
    ("places-shifted", _RAW, weight("Add", 0, 1, lambda w: np.roll(w, 1, 1)),
     "positions from 1, as RoBERTa's are from 2: gemma-2b was off by 1924, optimum#1755"),
    ("relu-for-gelu", _PASS, become("Gelu", 0, "Relu"), "the wrong entry of a table"),
    ("head-bias-of-one-class", _RAW, weight("Gemm", 0, 2, at(1, lambda b: b + 0.002)),
     "one class, below 5e-3"),
    ("state-by-sigmoid", _RAW, become("Tanh", 0, "Sigmoid"), "Olive looks at output 0 alone"),
)  # fmt: skip

TABLES = (
    *_faults(
        "forest",
        ("reciprocal-in-a-scaler", _RAW, _by_reciprocal,
         "a division became a multiplication, and rows took other branches: onnxruntime#4130"),
    ),
    *_faults(
        "trees",
        ("thresholds-rounded", _RAW,
         floats("TreeEnsembleClassifier", "nodes_values", _round_thresholds),
         "sklearn-onnx#1192 on gradient boosting"),
        ("less-for-less-or-equal", _RAW, _modes, "another library's convention for a split"),
        ("label-map-off-by-one", _RAW, _next_class, "classes from 1"),
        ("probabilities-of-the-next-class", _RAW,
         floats("TreeEnsembleClassifier", "class_weights", lambda w: np.roll(w, 1)),
         "sklearn-onnx#166: a forest's answers differ"),
    ),
    *_faults(
        "logistic",
        ("intercepts-dropped", _RAW, floats("LinearClassifier", "intercepts", np.zeros_like),
         "a linear model without its intercept"),
        ("mean-not-subtracted", _RAW, weight("Sub", 0, 1, np.zeros_like),
         "a scaler without its mean"),
        ("columns-swapped", _RAW,
         inserted("x", "Gather", np.array([1, 0, *range(2, 13)]), axis=1),
         "inputs in another order: list(set()), GR00T#205"),
        ("probabilities-in-percent", _RAW, last("probabilities", "Mul", np.float32(100)),
         "another unit"),
    ),
)  # fmt: skip
