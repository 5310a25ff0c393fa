"""Operators of neural networks: normalisation, activation, and the product of two matrices."""

from __future__ import annotations

import tensorflow as tf

from tasks.onnxtf.registry import Node, Tensor, operator


@operator("LayerNormalization", 17)
def layer_normalization(node: Node) -> list[Tensor]:
    """Bring the last axes to mean 0 and variance 1, then scale and shift."""
    tensor, rank = node[0], node[0].shape.rank
    axes = list(range(node.attributes.get("axis", -1) % rank, rank))
    x = tf.cast(tensor, tf.float32) if tensor.dtype.size < tf.float32.size else tensor
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=True)
    inverse = tf.math.rsqrt(variance + tf.cast(node.attributes.get("epsilon", 1e-5), x.dtype))
    answer = tf.cast((x - mean) * inverse, tensor.dtype) * node[1]
    if (shift := node.get(2)) is not None:
        answer += shift
    return [answer, mean, inverse]


@operator("RMSNormalization", 23)
def rms_normalization(node: Node) -> list[Tensor]:
    """Divide the last axes by their root mean square, then scale."""
    tensor, rank = node[0], node[0].shape.rank
    axes = list(range(node.attributes.get("axis", -1) % rank, rank))
    x = tf.cast(tensor, tf.float32) if tensor.dtype.size < tf.float32.size else tensor
    square = tf.reduce_mean(x * x, axes, keepdims=True)
    inverse = tf.math.rsqrt(square + tf.cast(node.attributes.get("epsilon", 1e-5), x.dtype))
    return [tf.cast(x * inverse, tensor.dtype) * node[1]]


@operator("GroupNormalization", 21)
def group_normalization(node: Node) -> list[Tensor]:
    """Normalise groups of channels, then scale and shift each channel."""
    tensor, groups = node[0], node.attributes["num_groups"]
    shape = tf.shape(tensor)
    grouped = tf.reshape(tensor, tf.stack([shape[0], groups, -1]))
    mean, variance = tf.nn.moments(grouped, [2], keepdims=True)
    epsilon = tf.cast(node.attributes.get("epsilon", 1e-5), tensor.dtype)
    answer = tf.reshape((grouped - mean) * tf.math.rsqrt(variance + epsilon), shape)
    answer = tf.ensure_shape(answer, tensor.shape)
    channels = [1, -1, *[1] * (tensor.shape.rank - 2)]
    return [answer * tf.reshape(node[1], channels) + tf.reshape(node[2], channels)]


@operator("BatchNormalization", 7, 9, 14, 15)
def batch_normalization(node: Node) -> list[Tensor]:
    """Shift and scale each channel by recorded statistics, folded into one factor and one sum."""
    if node.attributes.get("training_mode", 0) or not node.attributes.get("spatial", 1):
        raise node.cannot("statistics of the batch itself (a model in training mode)")
    tensor, scale, shift, mean, variance = (node[index] for index in range(5))
    epsilon = tf.cast(node.attributes.get("epsilon", 1e-5), variance.dtype)
    factor = scale * tf.math.rsqrt(variance + epsilon)
    channels = [1, -1, *[1] * (tensor.shape.rank - 2)]
    total = tf.reshape(shift - mean * factor, channels)
    return [tensor * tf.reshape(factor, channels) + total]


@operator("Gelu", 20)
def gelu(node: Node) -> list[Tensor]:
    """Weigh each element by the normal distribution's mass below it."""
    return [tf.nn.gelu(node[0], approximate=node.text("approximate", "none") == "tanh")]


@operator("Swish", 24)
def swish(node: Node) -> list[Tensor]:
    """Weigh each element by its own sigmoid."""
    return [
        node[0] * tf.sigmoid(tf.cast(node.attributes.get("alpha", 1.0), node[0].dtype) * node[0])
    ]


@operator("Mish", 18, 22)
def mish(node: Node) -> list[Tensor]:
    """Weigh each element by the hyperbolic tangent of its softplus."""
    return [node[0] * tf.tanh(tf.math.softplus(node[0]))]


@operator("Gemm", 7, 9, 11, 13)
def gemm(node: Node) -> list[Tensor]:
    """Multiply two matrices, then add a third."""
    left, right, dtype = node[0], node[1], node[0].dtype
    flip = [bool(node.attributes.get(each, 0)) for each in ("transA", "transB")]
    answer = tf.matmul(left, right, transpose_a=flip[0], transpose_b=flip[1])
    if (alpha := node.attributes.get("alpha", 1.0)) != 1.0:
        answer *= tf.cast(alpha, dtype)
    if (added := node.get(2)) is not None:
        beta = node.attributes.get("beta", 1.0)
        answer += added if beta == 1.0 else tf.cast(beta, dtype) * added
    return [answer]


@operator("Trilu", 14)
def trilu(node: Node) -> list[Tensor]:
    """Keep the upper or the lower triangle of the last two axes."""
    tensor = node[0]
    shift = tf.constant(0) if node.get(1) is None else tf.cast(tf.reshape(node[1], []), tf.int32)
    rows = tf.range(tf.shape(tensor)[-2])[:, None]
    columns = tf.range(tf.shape(tensor)[-1])[None, :]
    upper = columns - rows >= shift
    keep = upper if node.attributes.get("upper", 1) else columns - rows <= shift
    return [tf.where(keep, tensor, tf.zeros_like(tensor))]
