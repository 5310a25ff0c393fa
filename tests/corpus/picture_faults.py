"""Faults of a network for pictures: convolutions, normalisation, pooling, resizing, heads."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.corpus.planting import (
    Fault,
    Net,
    Right,
    after,
    at,
    attribute,
    become,
    change,
    constants,
    inserted,
    label,
    last,
    maker,
    read_another,
    remove,
    set_attribute,
    the,
    weight,
)

_RAW, _PASS, _SIMPLIFIER = "raw export", "exporter's optimisation", "simplifier"
_RUNTIME = "runtime optimisation"


def _other_weights(net: Net) -> Right:
    rng = np.random.default_rng(9)
    names = [each.name for each in net.graph.initializer if each.name.endswith(".weight")]
    for name in names:
        change(name, lambda w: rng.permutation(w.ravel()).reshape(w.shape), net)
    return {label(each) for each in net.graph.node if set(names) & set(each.input)}


def _train_batch_norm(net: Net) -> Right:
    """Normalise by the mean and variance of the batch, as a graph in training mode does."""
    node = the(net, "BatchNormalization")
    axes, *_ = constants(net, np.array([0, 2, 3]))
    read = node.input[0]
    made = [
        helper.make_node("ReduceMean", [read, axes], ["b_mean"], "planted_mean", keepdims=0),
        helper.make_node("ReduceMean", [read, axes], ["b_wide"], "planted_wide", keepdims=1),
        helper.make_node("Sub", [read, "b_wide"], ["b_off"], "planted_off"),
        helper.make_node("Mul", ["b_off", "b_off"], ["b_square"], "planted_square"),
        helper.make_node("ReduceMean", ["b_square", axes], ["b_var"], "planted_var", keepdims=0),
    ]
    place = list(net.graph.node).index(node)
    for i, each in enumerate(made):
        net.graph.node.insert(place + i, each)
    node.input[3], node.input[4] = "b_mean", "b_var"
    return {label(node), *map(label, made)}


def _overflow_in_float16(net: Net) -> Right:
    """Pass scaled numbers through float16, where 65,504 is the largest."""
    tensor = the(net, "Conv", 2).output[0]
    scaled, back = f"{tensor}_scaled", f"{tensor}_back"
    big, order = constants(net, np.float32(1e5), np.arange(12))
    for each in net.graph.node:
        each.input[:] = [back if name == tensor else name for name in each.input]
    made = [
        helper.make_node("Mul", [tensor, big], [scaled], "planted_big"),
        helper.make_node("Cast", [scaled], ["h"], "planted_half", to=TensorProto.FLOAT16),
        # ONNX Runtime would take out two casts in a row
        helper.make_node("Gather", ["h", order], ["h_same"], "planted_same", axis=1),
        helper.make_node("Cast", ["h_same"], ["h_wide"], "planted_wide", to=TensorProto.FLOAT),
        helper.make_node("Div", ["h_wide", big], [back], "planted_back"),
    ]
    place = [label(each) for each in net.graph.node].index(label(the(net, "Conv", 2)))
    for i, each in enumerate(made, start=1):
        net.graph.node.insert(place + i, each)
    return {"planted_half"}


def _nan_for_an_empty_picture(net: Net) -> Right:
    """Divide a picture by its largest value and multiply it again: 0 / 0 for an empty one."""
    axes, *_ = constants(net, np.array([1, 2, 3]))
    for each in net.graph.node:
        each.input[:] = ["image_" if name == "image" else name for name in each.input]
    made = [
        helper.make_node("ReduceMax", ["image", axes], ["top"], "planted_top", keepdims=1),
        helper.make_node("Div", ["image", "top"], ["unit"], "planted_unit"),
        helper.make_node("Mul", ["unit", "top"], ["image_"], "planted_image"),
    ]
    for i, each in enumerate(made):
        net.graph.node.insert(i, each)
    return {"planted_unit"}


def _first_row_for_all(net: Net) -> Right:
    """Answer every row of a batch as the first: invisible where rows are tried alone."""
    start, stop = constants(net, np.array([0]), np.array([1]))
    for each in net.graph.node:
        each.input[:] = ["image_" if name == "image" else name for name in each.input]
    made = [
        helper.make_node("Slice", ["image", start, stop], ["first"], "planted_first"),
        helper.make_node("Shape", ["image"], ["image_shape"], "planted_shape"),
        helper.make_node("Expand", ["first", "image_shape"], ["image_"], "planted_expand"),
    ]
    for i, each in enumerate(made):
        net.graph.node.insert(i, each)
    return {"planted_first", "planted_expand"}


def _batch_of_one(net: Net) -> Right:
    """Reshape to one row, whatever came in: the example's batch became a constant."""
    node = next(n for n in net.graph.node if n.op_type == "Reshape" and "clamp" in n.input)
    node.input[1] = constants(net, np.array([1, 12 * 5 * 7]))[0]
    return {label(node)}


def _without_output(net: Net) -> Right:
    right = maker(net, "probabilities")
    kept = [each for each in net.graph.output if each.name != "probabilities"]
    del net.graph.output[:]
    net.graph.output.extend(kept)
    return right


def _one_more_output(net: Net) -> Right:
    extra = the(net, "Gemm").output[0]
    made = helper.make_tensor_value_info(extra, TensorProto.FLOAT, ["batch", 16])
    net.graph.output.append(made)
    return maker(net, extra)


def _swapped_outputs(net: Net) -> Right:
    swapped = {"logits": "probabilities", "probabilities": "logits"}
    for each in net.graph.node:
        for side in (each.input, each.output):
            side[:] = [swapped.get(name, name) for name in side]
    return maker(net, "logits") | maker(net, "probabilities")


def _double_logits(net: Net) -> Right:
    right = last("logits", "Cast", to=TensorProto.DOUBLE)(net)
    net.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return right


def _clip_at_six(net: Net) -> Right:
    node = the(net, "Clip")
    node.input[2] = constants(net, np.float32(6))[0]
    return {label(node)}


def _weights_in_float16(net: Net) -> Right:
    names = [each.name for each in net.graph.initializer if each.name.endswith(".weight")]
    for name in names:
        change(name, lambda w: w.astype(np.float16).astype(np.float32), net)
    return {label(each) for each in net.graph.node if set(names) & set(each.input)}


def _without_bias(net: Net) -> Right:
    node = the(net, "Conv", 2)
    del node.input[2]
    return {label(node)}


def _beta_of_zero(net: Net) -> Right:
    node = the(net, "Gemm", 0)
    set_attribute(node, beta=0.0)
    return {label(node)}


def _largest_off(array: Any) -> Any:
    array.flat[np.abs(array).argmax()] *= 1.01
    return array


def _stale_kernel(net: Net) -> Right:
    node = the(net, "Conv", 2)
    rng = np.random.default_rng(5)
    change(node.input[1], lambda w: w + 0.05 * rng.normal(size=w.shape).astype(w.dtype), net)
    return {label(node)}


def _faults(*rows: tuple[str, Any, Any, str]) -> tuple[Fault, ...]:
    return tuple(Fault(name, "picture", stage, plant, wild) for name, stage, plant, wild in rows)


FAULTS = _faults(
    ("bias-dropped", _RAW, _without_bias,
     "BatchNorm fused into Gemm ignored its beta: onnxscript#3027"),
    ("bias-of-the-head-zero", _RAW, weight("Gemm", 1, 2, np.zeros_like),
     "a convolution's bias was wrong in ResNet-50: pytorch#166797"),
    ("bias-by-collision", _PASS, read_another("Conv", 1, 2, 0),
     "two fused biases of one name, ResNet at 0 %: pytorch#169178, onnxscript#2680"),
    ("gemm-beta-ignored", _PASS, _beta_of_zero, "onnxscript#3027"),
    ("batch-norm-in-training-mode", _RAW, _train_batch_norm,
     "exported without eval(): onnx#2831, pytorch#105661, onnxruntime#26584"),
    ("running-mean-dropped", _RAW, weight("BatchNormalization", 1, 3, np.zeros_like),
     "frozen statistics lost: byzantine-chant-ocr#144"),
    ("running-variance-of-one", _RAW, weight("BatchNormalization", 1, 4, np.ones_like),
     "frozen statistics lost: byzantine-chant-ocr#144"),
    ("epsilon-of-batch-norm", _RAW, attribute("BatchNormalization", 0, epsilon=1e-3),
     "Keras and torch have other defaults for it"),
    ("sign-of-one-channel", _RAW, weight("BatchNormalization", 0, 1, at(2, lambda w: -w)),
     "one channel of many: no mean error shows it"),
    ("weights-of-another-model", _RAW, _other_weights,
     "one cache key for two models: Olive#1936"),
    ("one-weight-off-by-one-percent", _PASS, weight("Conv", 1, 1, _largest_off),
     "what a wrong fold does to one channel"),
    ("a-kernel-of-an-older-checkpoint", _RAW, _stale_kernel,
     "one layer was not loaded again"),
    ("weights-through-float16", _SIMPLIFIER, _weights_in_float16,
     "stored in half, published as float32"),
    ("kernel-transposed", _RAW, weight("Conv", 0, 1, lambda w: w.swapaxes(2, 3)),
     "layouts of kernels differ between frameworks"),
    ("channels-swapped", _RAW, inserted("image", "Gather", np.array([2, 1, 0]), axis=1),
     "BGR for RGB: another preprocessing, pytorch#80133"),
    ("height-and-width-swapped", _RAW, after("Conv", 0, "Transpose", perm=[0, 1, 3, 2]),
     "onnx2tf's comparison aligns it away"),
    ("padding-mode", _RAW, attribute("Pad", mode="edge"), "reflect became edge"),
    ("padding-moved", _RAW, attribute("Conv", 0, pads=[2, 2, 0, 0]),
     "SAME_LOWER for SAME_UPPER: onnxruntime#25051 names pooling and convolutions"),
    ("dilation-and-padding-of-one", _RAW, attribute("Conv", 1, dilations=[1, 1], pads=[1, 1, 1, 1]),
     "an attribute that a converter did not know"),
    ("ceil-mode", _RAW, attribute("MaxPool", ceil_mode=0),
     "an attribute that a converter did not know: onnxruntime#21220 on pooling"),
    ("padding-not-counted", _RAW, attribute("AveragePool", count_include_pad=0),
     "defaults differ between torch and ONNX"),
    ("average-for-maximum-pooling", _RAW,
     become("MaxPool", 0, "AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
     "the wrong entry of a table of operators"),
    ("resize-nearest", _RAW, attribute("Resize", 0, mode="nearest"),
     "bilinear became nearest"),
    ("resize-corners-aligned", _RAW,
     attribute("Resize", 0, coordinate_transformation_mode="align_corners"),
     "align_corners taken for granted"),
    ("relu-dropped", _PASS, remove("Relu", 1), "fused away, and not kept"),
    ("leaky-relu", _RAW, become("Relu", 0, "LeakyRelu"), "another activation"),
    ("gelu-by-tanh", _RUNTIME, attribute("Gelu", approximate="tanh"),
     "the fast approximation: optimum#978 on O3"),
    ("clip-at-six", _RAW, _clip_at_six, "Relu6's bound for every clamp"),
    ("overflow-in-float16", _RAW, _overflow_in_float16,
     "NaN or Inf for some inputs alone: onnxruntime#11384, #21345"),
    ("nan-for-one-class", _RAW, weight("Gemm", 1, 2, at(3, np.nan)),
     "onnx2tf takes NaN for a match; so does verify=True where both have it"),
    ("nan-for-an-empty-picture", _RAW, _nan_for_an_empty_picture, "0 / 0 in a normalisation"),
    ("softmax-over-the-batch", _RAW, attribute("Softmax", axis=0),
     "axis 1 of opset 12 is another one than of opset 13"),
    ("softmax-twice", _RAW, last("probabilities", "Softmax", axis=1),
     "a head that had one already"),
    ("logits-scaled-by-one-in-two-thousand", _PASS, inserted("logits", "Mul", np.float32(1.0005)),
     "within rtol=1e-3, and not rounding"),
    ("logits-moved", _SIMPLIFIER, last("logits", "Add", np.float32(0.004)),
     "below the 5e-3 that verify=True allows"),
    ("labels-off-by-one", _RAW, last("label", "Add", np.array(1)),
     "a background class, or none"),
    ("ties-the-other-way", _RAW, attribute("ArgMax", 0, select_last_index=1),
     "of equal scores the last, not the first"),
    ("first-row-for-all", _RAW, _first_row_for_all, "rows tried alone do not show it"),
    ("batch-of-one", _RAW, _batch_of_one, "the example's batch became a constant"),
    ("an-output-missing", _SIMPLIFIER, _without_output, "onnxsim#227 deletes an output"),
    ("an-output-too-many", _RAW, _one_more_output, "torch zips outputs and sees no difference"),
    ("outputs-swapped", _RAW, _swapped_outputs, "list(set()) decided their order: GR00T#205"),
    ("float64-logits", _RAW, _double_logits, "sklearn-onnx#1229: mixed dtypes"),
)  # fmt: skip
