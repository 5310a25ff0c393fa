"""LSTM, GRU and plain recurrent networks, whole.

onnx-tf keeps one cell for all nodes of a model, one variable for both directions, and writes
the weights into it at every call; so a second LSTM gets the first one's weights, and two
callers at once may read each other's. Here a layer is a loop over time without any state.

Source: https://onnx.ai/onnx/operators/onnx__LSTM.html, …__GRU.html and …__RNN.html, whose
equations and names of weights are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tasks.onnxtf.registry import Node, Tensor, operator

if TYPE_CHECKING:
    from collections.abc import Callable

_ACTIVATIONS = {
    "affine": tf.identity,
    "elu": tf.nn.elu,
    "hardsigmoid": lambda x: tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0),
    "leakyrelu": lambda x: tf.nn.leaky_relu(x, 0.01),
    "relu": tf.nn.relu,
    "sigmoid": tf.sigmoid,
    "softplus": tf.math.softplus,
    "softsign": tf.nn.softsign,
    "tanh": tf.tanh,
}
"""By lower-case ONNX name, with the default parameters that ONNX gives each."""


@dataclass(frozen=True)
class _Weights:
    """What one direction of one layer computes with."""

    recurrent: Tensor
    """Shape (gates * hidden, hidden)."""
    recurrent_bias: Tensor
    """Shape (gates * hidden,)."""
    peepholes: Tensor | None
    activations: tuple[Callable[[Tensor], Tensor], ...]
    clip: Callable[[Tensor], Tensor]
    linear_before_reset: bool


@dataclass(frozen=True)
class _Cell:
    gates: int
    activations: tuple[str, ...]
    step: Callable[[_Weights, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
    """From weights, a step's input part of the gates, and the states to the next states."""
    states: int = 1


def _lstm_step(w: _Weights, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    hidden, cell = states
    f, g, h = w.activations
    total = x + tf.matmul(hidden, w.recurrent, transpose_b=True) + w.recurrent_bias
    i, o, forget, c = tf.split(total, 4, axis=-1)
    peep_i, peep_o, peep_f = [0.0] * 3 if w.peepholes is None else tf.split(w.peepholes, 3)
    forget_share = f(w.clip(forget + peep_f * cell))
    new = forget_share * cell + f(w.clip(i + peep_i * cell)) * g(w.clip(c))
    return f(w.clip(o + peep_o * new)) * h(new), new


def _gru_step(w: _Weights, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (hidden,) = states
    f, g = w.activations
    x_zr, x_h = tf.split(x, [2 * hidden.shape[-1], hidden.shape[-1]], axis=-1)
    r_zr, r_h = tf.split(w.recurrent, [2 * hidden.shape[-1], hidden.shape[-1]])
    b_zr, b_h = tf.split(w.recurrent_bias, [2 * hidden.shape[-1], hidden.shape[-1]])
    gates = f(w.clip(x_zr + tf.matmul(hidden, r_zr, transpose_b=True) + b_zr))
    z, r = tf.split(gates, 2, axis=-1)
    if w.linear_before_reset:
        inner = r * (tf.matmul(hidden, r_h, transpose_b=True) + b_h)
    else:
        inner = tf.matmul(r * hidden, r_h, transpose_b=True) + b_h
    new = g(w.clip(x_h + inner))
    return ((1 - z) * new + z * hidden,)


def _rnn_step(w: _Weights, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (hidden,) = states
    total = x + tf.matmul(hidden, w.recurrent, transpose_b=True) + w.recurrent_bias
    return (w.activations[0](w.clip(total)),)


_LSTM = _Cell(4, ("Sigmoid", "Tanh", "Tanh"), _lstm_step, states=2)
_GRU = _Cell(3, ("Sigmoid", "Tanh"), _gru_step)
_RNN = _Cell(1, ("Tanh",), _rnn_step)


@operator("LSTM", 7, 14, 22)
def lstm(node: Node) -> list[Tensor]:
    """Run a long short-term memory."""
    if node.attributes.get("input_forget", 0):
        raise node.cannot("input and forget gates coupled")
    return _layer(node, _LSTM)


@operator("GRU", 7, 14, 22)
def gru(node: Node) -> list[Tensor]:
    """Run gated recurrent units."""
    return _layer(node, _GRU)


@operator("RNN", 7, 14, 22)
def rnn(node: Node) -> list[Tensor]:
    """Run a plain recurrent network."""
    return _layer(node, _RNN)


def _layer(node: Node, cell: _Cell) -> list[Tensor]:
    """Run each direction and put them side by side: Y, then each state at the end."""
    x, batch_first = node[0], bool(node.attributes.get("layout", 0))
    if batch_first:
        x = tf.transpose(x, [1, 0, 2])
    direction = node.text("direction", "forward")
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    each = [_direction(node, cell, x, index, turned) for index, turned in enumerate(backward)]
    outputs = [tf.stack([y for y, _ in each], axis=1)]
    outputs += [tf.stack(ends) for ends in zip(*(ends for _, ends in each), strict=True)]
    if batch_first:
        outputs[0] = tf.transpose(outputs[0], [2, 0, 1, 3])
        outputs[1:] = [tf.transpose(end, [1, 0, 2]) for end in outputs[1:]]
    return outputs


def _direction(
    node: Node,
    cell: _Cell,
    x: Tensor,
    index: int,
    backward: bool,  # noqa: FBT001
) -> tuple[Tensor, list[Tensor]]:
    """Run one direction over x, shape (time, batch, features): all outputs, and the last states."""
    lengths = node.get(4)
    if backward:
        x = _reversed(x, lengths)
    kernel, hidden = node[1][index], node[2].shape[-1]
    bias = node.get(3)
    both = tf.zeros([2 * cell.gates * hidden], x.dtype) if bias is None else bias[index]
    input_bias, recurrent_bias = tf.split(both, 2)
    parts = tf.tensordot(x, tf.transpose(kernel), 1) + input_bias
    weights = _Weights(
        recurrent=node[2][index],
        recurrent_bias=recurrent_bias,
        peepholes=None if node.get(7) is None else node[7][index],
        activations=_activations(node, cell, index),
        clip=_clip(node),
        linear_before_reset=bool(node.attributes.get("linear_before_reset", 0)),
    )
    start = tuple(_start(node, cell, x, index, state) for state in range(cell.states))
    states = _over_time(cell, weights, parts, start, lengths)
    y = states[0]
    if lengths is not None:
        y = tf.where(_within(tf.range(tf.shape(x)[0])[:, None], lengths)[..., None], y, 0)
    return (_reversed(y, lengths) if backward else y), [state[-1] for state in states]


def _over_time(
    cell: _Cell, weights: _Weights, parts: Tensor, start: tuple[Tensor, ...], lengths: Tensor | None
) -> tuple[Tensor, ...]:
    """Return each state at each time; beyond a row's length its states stay as they were."""

    def step(states: tuple[Tensor, ...], at: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        time, part = at
        new = cell.step(weights, part, states)
        if lengths is None:
            return new
        going = _within(time, lengths)[:, None]
        return tuple(tf.where(going, a, b) for a, b in zip(new, states, strict=True))

    answer: tuple[Tensor, ...] = tf.scan(step, (tf.range(tf.shape(parts)[0]), parts), start)
    return answer


def _within(time: Tensor, lengths: Tensor) -> Tensor:
    return time < tf.cast(lengths, tf.int32)


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return tf.reverse(x, [0])
    return tf.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)


def _start(node: Node, cell: _Cell, x: Tensor, index: int, state: int) -> Tensor:
    shape = tf.stack([tf.shape(x)[1], node[2].shape[-1]])
    given = node.get(5 + state) if state < cell.states else None
    if given is None:
        return tf.zeros(shape, x.dtype)
    if node.attributes.get("layout", 0):
        given = tf.transpose(given, [1, 0, 2])
    return tf.reshape(given[index], shape)


def _activations(node: Node, cell: _Cell, index: int) -> tuple[Any, ...]:
    if {"activation_alpha", "activation_beta"} & set(node.attributes):
        raise node.cannot("activations with parameters of their own")
    count = len(cell.activations)
    names = node.attributes.get("activations") or cell.activations * (index + 1)
    names = [n.decode() if isinstance(n, bytes) else n for n in names]
    names = names[index * count : (index + 1) * count]
    if unknown := [name for name in names if name.lower() not in _ACTIVATIONS]:
        raise node.cannot(f"activation '{unknown[0]}'")
    return tuple(_ACTIVATIONS[name.lower()] for name in names)


def _clip(node: Node) -> Callable[[Tensor], Tensor]:
    limit = node.attributes.get("clip", 0.0)
    return (lambda x: tf.clip_by_value(x, -limit, limit)) if limit else tf.identity
