"""Arithmetic and reductions."""

from __future__ import annotations

from functools import reduce

import tensorflow as tf

from tasks.onnxtf.registry import Node, Tensor, operator
from tasks.onnxtf.shaping import axes_of


@operator("Div", 7, 13, 14)
def divide(node: Node) -> list[Tensor]:
    """Divide; whole numbers are rounded towards zero."""
    if node[0].dtype.is_floating:
        return [node[0] / node[1]]
    return [tf.truncatediv(node[0], node[1])]


@operator("Sum", 6, 8, 13)
def add_all(node: Node) -> list[Tensor]:
    """Add all inputs, each broadcast to the others."""
    return [reduce(tf.add, (node[index] for index in range(len(node))))]


@operator("Mean", 6, 8, 13)
def average_all(node: Node) -> list[Tensor]:
    """Average all inputs, each broadcast to the others."""
    return [reduce(tf.add, (node[index] for index in range(len(node)))) / len(node)]


@operator("Clip", 6, 11, 12, 13)
def clip(node: Node) -> list[Tensor]:
    """Raise to the least, then lower to the greatest value."""
    tensor = node[0]
    if not node.since(11):
        bounds = [node.attributes.get(each) for each in ("min", "max")]
        least, most = (None if b is None else tf.constant(b, tensor.dtype) for b in bounds)
    else:
        least, most = node.get(1), node.get(2)
    if least is not None:
        tensor = tf.maximum(tensor, tf.reshape(least, []))
    if most is not None:
        tensor = tf.minimum(tensor, tf.reshape(most, []))
    return [tensor]


@operator("MatMul", 1, 9, 13)
def multiply_matrices(node: Node) -> list[Tensor]:
    """Multiply matrices; a vector stands for a matrix of one row or one column."""
    left, right = node[0], node[1]
    row, column = left.shape.rank == 1, right.shape.rank == 1
    left = left[None, :] if row else left
    right = right[:, None] if column else right
    answer = tf.matmul(left, right)
    answer = tf.squeeze(answer, -1) if column else answer
    return [tf.squeeze(answer, -1 if column else -2) if row else answer]


@operator("LpNormalization", 1, 22)
def normalise_norm(node: Node) -> list[Tensor]:
    """Divide by the norm along an axis; where that is 0, answer 0."""
    tensor, axis = node[0], node.attributes.get("axis", -1)
    if node.attributes.get("p", 2) == 1:
        norm = tf.reduce_sum(tf.abs(tensor), axis, keepdims=True)
    else:
        norm = tf.sqrt(tf.reduce_sum(tensor * tensor, axis, keepdims=True))
    return [tf.math.divide_no_nan(tensor, norm)]


def _sum_square(tensor: Tensor, axis: list[int] | None, *, keepdims: bool) -> Tensor:
    return tf.reduce_sum(tensor * tensor, axis, keepdims=keepdims)


_REDUCTIONS = {
    "ReduceL1": lambda x, axis, keepdims: tf.reduce_sum(tf.abs(x), axis, keepdims=keepdims),
    "ReduceL2": lambda x, axis, keepdims: tf.sqrt(_sum_square(x, axis, keepdims=keepdims)),
    "ReduceLogSum": lambda x, axis, keepdims: tf.math.log(
        tf.reduce_sum(x, axis, keepdims=keepdims)
    ),
    "ReduceLogSumExp": tf.reduce_logsumexp,
    "ReduceMax": tf.reduce_max,
    "ReduceMean": tf.reduce_mean,
    "ReduceMin": tf.reduce_min,
    "ReduceProd": tf.reduce_prod,
    "ReduceSum": tf.reduce_sum,
    "ReduceSumSquare": lambda x, axis, keepdims: _sum_square(x, axis, keepdims=keepdims),
}


def _enter_reductions() -> None:
    def enter(name: str, *versions: int) -> None:
        @operator(name, *versions)
        def reduce_(node: Node) -> list[Tensor]:
            axes = axes_of(node, 1)
            if not axes:
                # no axes mean all, or that each element is reduced by itself
                axes = [] if node.attributes.get("noop_with_empty_axes", 0) else None
            keep = bool(node.attributes.get("keepdims", 1))
            return [_REDUCTIONS[name](node[0], axes, keepdims=keep)]

    for name in _REDUCTIONS:
        enter(name, 1, 11, 12, 13, 18, 20)


_enter_reductions()
