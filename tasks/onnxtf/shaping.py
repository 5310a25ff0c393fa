"""Operators that give a tensor another shape or take parts of it.

Every function answers the outputs of one node. What each operator means:
https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tasks.onnxtf.registry import Node, Tensor, operator

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INT32_MAX = 2**31 - 1


def axes_of(node: Node, index: int) -> list[int] | None:
    """Return the axes that a node gives as an input or, in older versions, as an attribute."""
    value = node.fixed(index, "axes")
    if value is None:
        axes = node.attributes.get("axes")
        return None if axes is None else [int(axis) for axis in axes]
    return [int(axis) for axis in np.ravel(value)]


@operator("Squeeze", 1, 11, 13, 21, 23, 24, 25)
def squeeze(node: Node) -> list[Tensor]:
    """Drop axes of size 1."""
    return [tf.squeeze(node[0], axis=axes_of(node, 1))]


@operator("Unsqueeze", 1, 11, 13, 21, 23, 24, 25)
def unsqueeze(node: Node) -> list[Tensor]:
    """Insert axes of size 1, numbered as they stand in the answer."""
    tensor, axes = node[0], axes_of(node, 1) or []
    rank = tensor.shape.rank + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        tensor = tf.expand_dims(tensor, axis)
    return [tensor]


@operator("Reshape", 5, 13, 14, 19, 21, 23, 24, 25)
def reshape(node: Node) -> list[Tensor]:
    """Give a tensor another shape, in which 0 means the size that stood there before."""
    tensor, shape = node[0], node[1]
    if node.attributes.get("allowzero", 0):
        return [tf.reshape(tensor, shape)]
    known = node.known(1)
    sizes = tf.shape(tensor, out_type=shape.dtype)

    def before(axis: int) -> Tensor:
        static = tensor.shape[axis] if axis < tensor.shape.rank else 0
        return sizes[axis] if static is None else tf.constant(static, shape.dtype)

    new = []
    for axis in range(shape.shape[0]):
        size = shape[axis] if known is None else tf.constant(known[axis], shape.dtype)
        if known is None and axis < tensor.shape.rank:
            size = tf.where(size == 0, before(axis), size)
        elif known is not None and known[axis] == 0:
            size = before(axis)
        new.append(size)
    return [tf.reshape(tensor, tf.stack(new) if new else shape)]


@operator("Flatten", 1, 9, 11, 13, 21, 23, 24, 25)
def flatten(node: Node) -> list[Tensor]:
    """Make a matrix: the axes before the given one are the rows, the others the columns."""
    tensor, rank = node[0], node[0].shape.rank
    axis = node.attributes.get("axis", 1)
    axis = axis + rank if axis < 0 else axis
    rows, columns = tensor.shape[:axis].num_elements(), tensor.shape[axis:].num_elements()
    if rows is None and columns is None:
        columns = tf.reduce_prod(tf.shape(tensor)[axis:])
    return [tf.reshape(tensor, [-1 if rows is None else rows, -1 if columns is None else columns])]


@operator("Gather", 1, 11, 13)
def gather(node: Node) -> list[Tensor]:
    """Take slices along an axis; a negative index counts from the end."""
    tensor, indices, axis = node[0], node[1], node.attributes.get("axis", 0)
    known = node.known(1)
    if known is not None and np.all(np.greater_equal(known, 0)):
        return [tf.gather(tensor, indices, axis=axis)]
    size = tf.shape(tensor, out_type=indices.dtype)[axis]
    return [tf.gather(tensor, tf.where(indices < 0, indices + size, indices), axis=axis)]


@operator("Slice", 1, 10, 11, 13)
def slice_(node: Node) -> list[Tensor]:
    """Cut out ``starts:ends:steps`` along the given axes."""
    tensor, rank = node[0], node[0].shape.rank
    starts, ends = _numbers(node, 1, "starts"), _numbers(node, 2, "ends")
    steps = [1] * len(starts) if node.get(4) is None else _numbers(node, 4, "steps")
    axes = node.attributes.get("axes") if not node.since(10) else axes_of(node, 3)
    axes = list(range(len(starts))) if axes is None else [axis % rank for axis in axes]
    cuts: list[slice] = [slice(None)] * rank
    for axis, *cut in zip(axes, starts, ends, steps, strict=True):
        cuts[axis] = slice(*cut)
    return [tensor[tuple(cuts)]]


def _numbers(node: Node, index: int, name: str) -> list[int | Tensor]:
    """Return whole numbers, each a constant where it is known beforehand."""
    if not node.since(10):
        return list(node.attributes[name])
    known = node.known(index)
    if known is None:
        return list(tf.unstack(tf.cast(node[index], tf.int64)))
    return [int(each) for each in np.clip(known, -_INT32_MAX, _INT32_MAX)]


@operator("Split", 18)
def split(node: Node) -> list[Tensor]:
    """Cut a tensor into the given or into equal pieces, of which the last may be smaller."""
    tensor, axis = node[0], node.attributes.get("axis", 0)
    if (sizes := node.get(1)) is not None:
        return list(tf.split(tensor, sizes, axis=axis, num=len(node.outputs)))
    size, pieces = tensor.shape[axis], len(node.outputs)
    if size is None:
        raise node.cannot("equal pieces of an axis of unknown size")
    each = -(-size // pieces)
    return list(tf.split(tensor, [*[each] * (pieces - 1), size - each * (pieces - 1)], axis=axis))


@operator("Pad", 2, 11, 13, 18, 19, 21, 23, 24, 25)
def pad(node: Node) -> list[Tensor]:
    """Add margins before and after the given axes; a negative margin cuts."""
    tensor, rank = node[0], node[0].shape.rank
    given = node.fixed(1, "pads") if node.since(11) else node.attributes.get("pads")
    margins = np.asarray(given).reshape(2, -1)
    axes = axes_of(node, 3) if node.since(18) else None
    both = np.zeros((rank, 2), np.int64)
    both[list(range(rank)) if axes is None else axes] = margins.T
    if (both < 0).any():
        ends = [None if after >= 0 else int(after) for _, after in both]
        tensor = tensor[tuple(slice(max(0, -b), e) for (b, _), e in zip(both, ends, strict=True))]
    both = np.maximum(both, 0)
    mode = node.text("mode", "constant")
    if mode not in {"constant", "reflect", "edge"}:
        raise node.cannot(f"mode '{mode}'")
    if mode == "edge":
        return [_pad_by_edge(tensor, both)]
    if not node.since(11):
        value = tf.constant(node.attributes.get("value", 0.0), tensor.dtype)
    else:
        value = node.get(2)
        value = tf.zeros([], tensor.dtype) if value is None else tf.reshape(value, [])
    return [tf.pad(tensor, both, mode=mode.upper(), constant_values=value)]


def _pad_by_edge(tensor: Tensor, margins: NDArray[np.int64]) -> Tensor:
    for axis, (before, after) in enumerate(margins):
        if before or after:
            last = tf.shape(tensor, out_type=tf.int64)[axis]
            places = tf.clip_by_value(tf.range(-before, last + after), 0, last - 1)
            tensor = tf.gather(tensor, places, axis=axis)
    return tensor


@operator("Shape", 1, 13, 15, 19, 21, 23, 24, 25)
def shape_(node: Node) -> list[Tensor]:
    """Answer the sizes of the axes, or of some that follow each other."""
    rank = node[0].shape.rank
    first, last, _ = slice(node.attributes.get("start", 0), node.attributes.get("end"), 1).indices(
        rank
    )
    known = node[0].shape[first:last]
    if known.is_fully_defined():
        return [tf.constant(known.as_list(), tf.int64)]
    return [tf.shape(node[0], out_type=tf.int64)[first:last]]
