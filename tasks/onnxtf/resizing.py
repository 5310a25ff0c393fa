"""Resize and Upsample, axis by axis, as weighted sums of a few neighbours.

Source: https://onnx.ai/onnx/operators/onnx__Resize.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import tensorflow as tf

from tasks.onnxtf.registry import Node, Tensor, operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.floating[Any]]"

_ROUND: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@operator("Resize", 10, 11, 13, 18, 19)
def resize(node: Node) -> list[Tensor]:
    """Give axes other sizes, by scale or as they are asked for."""
    tensor, rank = node[0], node[0].shape.rank
    scales = node.fixed(2 if node.since(11) else 1, "scales")
    if scales is not None and np.size(scales):
        factors = [float(each) for each in np.ravel(scales)]
        targets = [
            factor == 1 or int(np.floor(_known(node, axis) * factor))
            for axis, factor in enumerate(factors)
        ]
    else:
        sizes = _static_sizes(node, 3)
        targets = [size is None or size == tensor.shape[a] or size for a, size in enumerate(sizes)]
        factors = [
            1.0 if target is True else target / _known(node, axis)
            for axis, target in enumerate(targets)
        ]
    for axis in range(rank):
        if targets[axis] is not True:
            tensor = _along(node, tensor, axis, int(targets[axis]), factors[axis])
    return [tensor]


@operator("Upsample", 7, 9)
def upsample(node: Node) -> list[Tensor]:
    """Give axes other sizes by scale, as opsets before 10 did."""
    scales = node.fixed(1, "scales") if node.since(9) else node.attributes["scales"]
    tensor = node[0]
    for axis, factor in enumerate(np.ravel(np.asarray(scales))):
        if factor != 1:
            size = int(np.floor(_known(node, axis) * float(factor)))
            tensor = _along(node, tensor, axis, size, float(factor))
    return [tensor]


def _known(node: Node, axis: int) -> int:
    size = node[0].shape[axis]
    if size is None:
        raise node.cannot(f"another size for axis {axis}, whose size is unknown")
    return int(size)


def _static_sizes(node: Node, index: int) -> list[int | None]:
    """Return the sizes asked for; ``None`` is one that follows the batch."""
    from tensorflow.python.framework.tensor_util import constant_value_as_shape

    if node.get(index) is None:
        raise node.cannot("neither scales nor sizes")
    sizes = list(constant_value_as_shape(tf.cast(node[index], tf.int64)))
    if any(size is None for size in sizes[1:]):
        raise node.cannot("sizes computed while the model runs")
    return sizes


def _along(node: Node, tensor: Tensor, axis: int, size: int, scale: float) -> Tensor:
    length = int(tensor.shape[axis])
    at = _source_places(node, np.arange(size, dtype=np.float64), length, size, scale)
    mode = node.text("mode", "nearest")
    if mode == "nearest":
        how = node.text("nearest_mode", "round_prefer_floor") if node.since(11) else "floor"
        places = np.clip(_ROUND[how](at), 0, length - 1).astype(np.int32)
        return tf.gather(tensor, places, axis=axis)
    if mode not in {"linear", "cubic"}:
        raise node.cannot(f"mode '{mode}'")
    taps = _linear_taps(at) if mode == "linear" else _cubic_taps(node, at)
    if node.attributes.get("exclude_outside", 0):
        inside = [w * ((p >= 0) & (p < length)) for p, w in taps]
        total = np.sum(inside, axis=0)
        taps = [(p, w / total) for (p, _), w in zip(taps, inside, strict=True)]
    shape = [1] * tensor.shape.rank
    shape[axis] = size
    pieces = [
        tf.gather(tensor, np.clip(p, 0, length - 1), axis=axis)
        * tf.constant(w.reshape(shape), tensor.dtype)
        for p, w in taps
    ]
    return tf.add_n(pieces)


def _source_places(node: Node, x: Floats, length: int, size: int, scale: float) -> Floats:
    """Return where in the input each element of the output lies."""
    how = "asymmetric"
    if node.since(11):
        how = node.text("coordinate_transformation_mode", "half_pixel")
    if how == "asymmetric":
        return x / scale
    if how == "align_corners":
        if not float(scale * length).is_integer():
            # ONNX and ONNX Runtime differ on what the last element then is
            raise node.cannot("align_corners and a scale that leads to no whole size")
        return x * (length - 1) / (size - 1) if size > 1 else x * 0
    if how == "half_pixel" or (how == "pytorch_half_pixel" and size > 1):
        return (x + 0.5) / scale - 0.5
    if how == "pytorch_half_pixel":
        return x * 0
    if how == "half_pixel_symmetric":
        adjusted = size / (scale * length)
        return length / 2 * (1 - adjusted) + (x + 0.5) / scale - 0.5
    raise node.cannot(f"coordinate_transformation_mode '{how}'")


def _linear_taps(at: Floats) -> list[tuple[NDArray[np.int32], Floats]]:
    low = np.floor(at)
    return [
        (low.astype(np.int32), 1 - (at - low)),
        ((low + 1).astype(np.int32), at - low),
    ]


def _cubic_taps(node: Node, at: Floats) -> list[tuple[NDArray[np.int32], Floats]]:
    """Return four neighbours and their weights by Keys' kernel."""
    a = float(node.attributes.get("cubic_coeff_a", -0.75))
    low = np.floor(at)
    taps = []
    for step in range(-1, 3):
        d = np.abs(at - (low + step))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        taps.append(((low + step).astype(np.int32), np.where(d <= 1, near, far)))
    return taps
