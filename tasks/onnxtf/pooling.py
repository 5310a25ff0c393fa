"""Pooling, with ONNX's own rules for margins and for windows that reach over the edge.

Source: https://onnx.ai/onnx/operators/onnx__MaxPool.html and …__AveragePool.html
"""

from __future__ import annotations

import tensorflow as tf

from tasks.onnxtf.registry import Node, Tensor, operator

Margins = list[list[int]]


def margins(node: Node, sizes: list[int | None], kernel: list[int]) -> Margins:
    """Return how far each spatial axis is widened, before and after.

    Raises:
        ExportError: The margins depend on a size that is not known beforehand.
    """
    spatial = len(sizes)
    strides = node.attributes.get("strides", [1] * spatial)
    dilations = node.attributes.get("dilations", [1] * spatial)
    how = node.text("auto_pad", "NOTSET")
    if how == "VALID":
        return [[0, 0]] * spatial
    if how == "NOTSET":
        pads = list(node.attributes.get("pads", [0] * 2 * spatial))
        return [list(each) for each in zip(pads[:spatial], pads[spatial:], strict=True)]
    answer = []
    for size, stride, width, dilation in zip(sizes, strides, kernel, dilations, strict=True):
        if size is None:
            raise node.cannot(f"auto_pad '{how}' of an axis of unknown size")
        count = -(-size // stride)
        total = max((count - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        answer.append([small, large] if how == "SAME_UPPER" else [large, small])
    return answer


def _overhang(node: Node, sizes: list[int | None], kernel: list[int], pads: Margins) -> list[int]:
    """Return how far the last window of each axis reaches over the edge, with ``ceil_mode``."""
    spatial = len(sizes)
    if not node.attributes.get("ceil_mode", 0):
        return [0] * spatial
    strides = node.attributes.get("strides", [1] * spatial)
    dilations = node.attributes.get("dilations", [1] * spatial)
    answer = []
    for axis, size in enumerate(sizes):
        if size is None:
            raise node.cannot("ceil_mode of an axis of unknown size")
        before, after = pads[axis]
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        padded = size + before + after
        count = -(-(padded - reach) // strides[axis]) + 1
        if (count - 1) * strides[axis] >= size + before:
            count -= 1  # a window may not start in the margin after the input
        answer.append(max(0, (count - 1) * strides[axis] + reach - padded))
    return answer


def _pool(node: Node, x: Tensor, how: str) -> Tensor:
    spatial = x.shape.rank - 2
    strides = node.attributes.get("strides", [1] * spatial)
    dilations = node.attributes.get("dilations", [1] * spatial)
    if max(strides) > 1 and max(dilations) > 1:
        raise node.cannot("strides and dilations together")
    kernel = node.attributes["kernel_shape"]
    if max(kernel) == 1:  # TensorFlow refuses strides that are larger than the window
        return x[(slice(None), *(slice(None, None, each) for each in strides))]
    return tf.nn.pool(x, kernel, how, strides, "VALID", dilations=dilations)


def _channels_last(tensor: Tensor) -> Tensor:
    return tf.transpose(tensor, [0, *range(2, tensor.shape.rank), 1])


def _channels_first(tensor: Tensor) -> Tensor:
    return tf.transpose(tensor, [0, tensor.shape.rank - 1, *range(1, tensor.shape.rank - 1)])


def _edges(node: Node) -> tuple[Margins, list[int]]:
    sizes, kernel = list(node[0].shape[2:]), node.attributes["kernel_shape"]
    pads = margins(node, sizes, kernel)
    return pads, _overhang(node, sizes, kernel, pads)


@operator("MaxPool", 1, 8, 10, 11, 12, 22)
def max_pool(node: Node) -> list[Tensor]:
    """Answer the largest element of each window."""
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.cannot("the places of the largest elements as a second output")
    pads, over = _edges(node)
    x, dtype = _channels_last(node[0]), node[0].dtype
    if not dtype.is_floating:
        x = tf.cast(x, tf.float32)
    both = [[b, a + o] for (b, a), o in zip(pads, over, strict=True)]
    if any(map(any, both)):
        x = tf.pad(x, [[0, 0], *both, [0, 0]], constant_values=x.dtype.min)
    return [tf.cast(_channels_first(_pool(node, x, "MAX")), dtype)]


@operator("AveragePool", 7, 10, 11, 19, 22)
def average_pool(node: Node) -> list[Tensor]:
    """Answer the mean of each window, over what of the window counts."""
    pads, over = _edges(node)
    x = _channels_last(node[0])
    outer = [[0, 0], *[[0, each] for each in over], [0, 0]]
    inner = [[0, 0], *pads, [0, 0]]
    if not any(map(any, inner + outer)):
        return [_channels_first(_pool(node, x, "AVG"))]
    counted = tf.ones_like(x[:1, ..., :1])
    margin = 1 if node.attributes.get("count_include_pad", 0) else 0
    counted = tf.pad(tf.pad(counted, inner, constant_values=margin), outer)
    mean = _pool(node, tf.pad(tf.pad(x, inner), outer), "AVG")
    return [_channels_first(mean / _pool(node, counted, "AVG"))]
