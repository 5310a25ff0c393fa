"""Convolution, with its weights turned to TensorFlow's layout when they are constants."""

from __future__ import annotations

import tensorflow as tf

from tasks.onnxtf.pooling import margins
from tasks.onnxtf.registry import Node, Tensor, operator


@operator("Conv", 1, 11, 22)
def convolve(node: Node) -> list[Tensor]:
    """Convolve a batch of N, C, then spatial axes; the weights are O, C / groups, then spatial.

    TensorFlow's CPU kernels want the channels last, so the input is turned round before
    and back after; neighbouring turns cancel out when TensorFlow optimises the graph.
    """
    tensor, spatial = node[0], node[0].shape.rank - 2
    groups = node.attributes.get("group", 1)
    weights = tf.transpose(node[1], [*range(2, spatial + 2), 1, 0])
    strides = node.attributes.get("strides", [1] * spatial)
    dilations = node.attributes.get("dilations", [1] * spatial)
    padding = margins(node, list(tensor.shape[2:]), list(weights.shape[:spatial]))
    x = tf.transpose(tensor, [0, *range(2, spatial + 2), 1])
    if any(map(any, padding)):
        x = tf.pad(x, [[0, 0], *padding, [0, 0]])
    if groups == 1:
        x = tf.nn.convolution(x, weights, strides, "VALID", dilations=dilations)
    elif groups == x.shape[-1] and spatial == 2:  # noqa: PLR2004 - pictures
        x = _depthwise(x, weights, strides, dilations)
    else:
        pieces = zip(tf.split(x, groups, axis=-1), tf.split(weights, groups, axis=-1), strict=True)
        x = tf.concat(
            [tf.nn.convolution(a, b, strides, "VALID", dilations=dilations) for a, b in pieces], -1
        )
    if (bias := node.get(2)) is not None:
        x = tf.nn.bias_add(x, bias)
    return [tf.transpose(x, [0, spatial + 1, *range(1, spatial + 1)])]


def _depthwise(x: Tensor, weights: Tensor, strides: list[int], dilations: list[int]) -> Tensor:
    height, width, _, out = weights.shape
    weights = tf.reshape(weights, [height, width, x.shape[-1], out // x.shape[-1]])
    if len(set(strides)) == 1 and (max(dilations) == 1 or max(strides) == 1):
        return tf.nn.depthwise_conv2d(x, weights, [1, *strides, 1], "VALID", dilations=dilations)
    # the depthwise kernel has one stride for both axes, and none beside dilations
    pieces = zip(
        tf.split(x, x.shape[-1], axis=-1), tf.split(weights, x.shape[-1], axis=2), strict=True
    )
    return tf.concat(
        [tf.nn.convolution(a, b, strides, "VALID", dilations=dilations) for a, b in pieces], -1
    )
