"""Small random graphs of one operator each, in every version that we express ourselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import defs, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from numpy.typing import NDArray

Array = Any
ML = "ai.onnx.ml"


@dataclass(frozen=True)
class Case:
    """One operator, on which input, with which weights, in which version."""

    name: str
    operator: str
    version: int
    x: NDArray[Any]
    weights: tuple[NDArray[Any] | None, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    domain: str = ""

    def __str__(self) -> str:
        return f"{self.operator}-{self.version}-{self.name}"

    @property
    def key(self) -> str:
        return f"{self.domain} {self.operator} {self.version}"

    def model(self, change: float = 0.0) -> onnx.ModelProto:
        """Build the graph; ``change`` moves every float weight by that share of its spread."""
        moved = [None if w is None else _moved(w, change) for w in self.weights]
        names = ["" if w is None else f"w{i}" for i, w in enumerate(moved)]
        outputs = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(
            self.operator, ["x", *names], outputs, "it", domain=self.domain, **self.attributes
        )
        kind = helper.np_dtype_to_tensor_dtype(self.x.dtype) if self.x.dtype.kind != "U" else 8
        # the first axis is free, so nothing may lean on its size
        graph = helper.make_graph(
            [node],
            "graph",
            [helper.make_tensor_value_info("x", kind, ["batch", *self.x.shape[1:]])],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [
                numpy_helper.from_array(w, n)
                for w, n in zip(moved, names, strict=True)
                if w is not None
            ],
        )
        opset = {"": 17 if self.domain else self.version}
        if self.domain:
            opset[self.domain] = self.version
        imports = [helper.make_opsetid(*each) for each in opset.items()]
        return helper.make_model(graph, opset_imports=imports, ir_version=8 if self.domain else 10)


def _moved(weight: NDArray[Any], change: float) -> NDArray[Any]:
    if weight.dtype.kind != "f" or not change:
        return weight
    noise = np.random.default_rng(9).normal(size=weight.shape)
    moved: NDArray[Any] = weight + change * (weight.std() + 0.1) * noise
    return moved.astype(weight.dtype)


_rng = np.random.default_rng(0)


def _x(*shape: int, low: float = -2, high: float = 2) -> Array:
    return _rng.uniform(low, high, shape).astype(np.float32)


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


def _each(
    versions: str, name: str, operator: str, x: Array, *weights: Array, **more: Any
) -> Iterator[Case]:
    special = {key: more.pop(key) for key in ("outputs", "domain") if key in more}
    for version in map(int, versions.split()):
        yield Case(name, operator, version, x, weights, more, **special)


def _with_axes(
    versions: str, name: str, operator: str, x: Array, axes: tuple[int, ...], turn: int
) -> Iterator[Case]:
    """Give the axes as an attribute, and as an input from version ``turn`` on."""
    for version in map(int, versions.split()):
        if version < turn:
            yield Case(name, operator, version, x, (), {"axes": list(axes)})
        else:
            yield Case(name, operator, version, x, (_ints(*axes),))


def _shapes() -> Iterator[Case]:
    v = "1 11 13 21 23 24 25"
    yield from _with_axes(v, "two", "Squeeze", _x(2, 1, 3, 1), (1, 3), 13)
    yield from _each("13", "all-ones", "Squeeze", _x(2, 1, 3, 1), _ints(-1))
    yield from _with_axes(v, "two", "Unsqueeze", _x(2, 3), (0, 3), 13)
    yield from _with_axes("11 13", "unsorted-negative", "Unsqueeze", _x(2, 3), (-1, 1), 13)
    v = "5 13 14 19 21 23 24 25"
    yield from _each(v, "minus-one", "Reshape", _x(4, 3, 2), _ints(-1, 2))
    yield from _each("14", "copied", "Reshape", _x(4, 3, 2), _ints(0, 3, 1, -1))
    yield from _each("14", "copied-later", "Reshape", _x(4, 3, 2), _ints(-1, 0))
    yield from _each("1 9 11 13 21 23 24 25", "rows", "Flatten", _x(2, 3, 4))
    for axis in (-1, 0, 3):
        yield from _each("13", f"axis{axis}", "Flatten", _x(2, 3, 4), axis=axis)
    x = _x(3, 4, 5)
    yield from _each("1 11 13", "rows", "Gather", x, _ints(2, 0), axis=1)
    yield from _each("11 13", "negative", "Gather", x, _ints(-1, 1), axis=2)
    yield from _each("13", "one", "Gather", x, np.array(-2, np.int64), axis=-1)
    yield from _each("1", "clamped", "Slice", x, starts=[1, -3], ends=[9, -1], axes=[1, 2])
    yield from _each("10 11 13", "clamped", "Slice", x, _ints(1, -3), _ints(2**62, -1), _ints(1, 2))
    yield from _each(
        "10 13",
        "backwards",
        "Slice",
        x,
        _ints(-1, 4),
        _ints(-(2**62), 0),
        _ints(-2, 2),
        _ints(-1, -2),
    )
    yield from _each("18", "sizes", "Split", x, _ints(1, 3), axis=1, outputs=2)
    yield from _each("18", "uneven", "Split", x, axis=2, num_outputs=2, outputs=2)
    yield from _each("1 13", "all", "Shape", _x(2, 3, 4))
    yield from _each("15 19 21 23 24 25", "part", "Shape", _x(2, 3, 4), start=-2, end=9)
    yield from _each("15", "none", "Shape", _x(2, 3, 4), start=2, end=1)


def _margins() -> Iterator[Case]:
    x, pads = _x(3, 4, 5), [0, 1, 0, 0, 2, 1]
    yield from _each("2", "constant", "Pad", x, pads=pads, value=0.5)
    for mode in ("constant", "reflect", "edge"):
        v = "11 13 18 19 21 23 24 25" if mode == "constant" else "11 21"
        yield from _each(v, mode, "Pad", x, _ints(*pads), np.float32(0.5), mode=mode)
    yield from _each("18", "axes", "Pad", x, _ints(-1, 2), None, _ints(2))
    yield from _each("14", "lower", "Trilu", x, np.array(1, np.int64), upper=0)
    yield from _each("14", "upper", "Trilu", x, np.array(-1, np.int64))


def _arithmetic() -> Iterator[Case]:
    x = _x(3, 4, 5)
    yield from _each("7 13 14", "floats", "Div", x, _x(4, 1, low=0.5))
    numbers = np.array([[-7, 7, -1, 5]], np.int32)
    yield from _each("14", "towards-zero", "Div", numbers, np.array([2, -2, 3, 3], np.int32))
    for name in ("Sum", "Mean"):
        yield from _each("8 13", "broadcast", name, x, _x(5), _x(4, 1))
        yield from _each("6", "alike", name, x, np.ones_like(x))
    yield from _each("6", "both", "Clip", x, min=-0.5, max=0.7)
    yield from _each("11 12 13", "both", "Clip", x, np.float32(-0.5), np.float32(0.7))
    yield from _each("13", "above", "Clip", x, None, np.float32(0.7))
    yield from _each("13", "crossed", "Clip", x, np.float32(0.7), np.float32(-0.5))
    yield from _each("1 9 13", "stack", "MatMul", x, _x(5, 3))
    yield from _each("13", "vector", "MatMul", x, _x(5))
    for p in (1, 2):
        zero = np.concatenate([_x(2, 3), np.zeros((1, 3), np.float32)])
        yield from _each("1 22", f"l{p}", "LpNormalization", zero, axis=-1, p=p)
    for name in (
        "L1",
        "L2",
        "LogSum",
        "LogSumExp",
        "Max",
        "Mean",
        "Min",
        "Prod",
        "Sum",
        "SumSquare",
    ):
        positive = _x(3, 4, 5, low=0.1)
        own = {"Max": "1 11 12 13 18 20", "Min": "1 11 12 13 18 20", "Sum": "1 11 13"}
        turn = 13 if name == "Sum" else 18
        versions = own.get(name, "1 11 13 18")
        yield from _with_axes(versions, "two", f"Reduce{name}", positive, (1, 2), turn)
        yield from _each("13", "all", f"Reduce{name}", positive, keepdims=0)
    yield from _each("18", "by-itself", "ReduceL1", x, noop_with_empty_axes=1)
    yield from _each("18", "by-itself", "ReduceMean", x, noop_with_empty_axes=1)


def _networks() -> Iterator[Case]:
    x = _x(3, 4, 5, 7)
    yield from _each("17", "last", "LayerNormalization", x, _x(7), _x(7), epsilon=1e-2)
    yield from _each("17", "two", "LayerNormalization", x, _x(5, 7), axis=2)
    yield from _each("23", "last", "RMSNormalization", x, _x(7), epsilon=1e-2)
    yield from _each("21", "groups", "GroupNormalization", x, _x(4), _x(4), num_groups=2)
    statistics = (_x(4), _x(4), _x(4), _x(4, low=0.2))
    yield from _each("7 9 14 15", "channels", "BatchNormalization", x, *statistics, epsilon=1e-2)
    yield from _each("15", "table", "BatchNormalization", _x(6, 4), *statistics)
    for how in ("none", "tanh"):
        yield from _each("20", how, "Gelu", x, approximate=how)
    yield from _each("24", "steep", "Swish", x, alpha=1.5)
    yield from _each("18 22", "plain", "Mish", x)
    yield from _each("7 9 11 13", "plain", "Gemm", _x(3, 5), _x(5, 4), _x(4))
    yield from _each("11 13", "flipped", "Gemm", _x(3, 5), _x(4, 5), transB=1, alpha=0.5)
    yield from _each("13", "shared", "Gemm", _x(3, 5), _x(5, 4), _x(1, 4), alpha=0.5, beta=2.0)


def _convolutions() -> Iterator[Case]:
    x = _x(2, 6, 9, 11)
    square, wide = {"kernel_shape": [3, 3]}, {"kernel_shape": [2, 3]}
    yield from _each(
        "1 11 22", "padded", "Conv", x, _x(4, 6, 2, 3), _x(4), pads=[1, 0, 2, 1], strides=[2, 1]
    )
    yield from _each("11", "dilated", "Conv", x, _x(4, 6, 3, 3), dilations=[2, 1], **square)
    yield from _each("11", "groups", "Conv", x, _x(4, 3, 3, 3), _x(4), group=2, **square)
    yield from _each(
        "11", "depthwise", "Conv", x, _x(12, 1, 3, 3), group=6, strides=[2, 2], **square
    )
    yield from _each("11", "depthwise-uneven", "Conv", x, _x(6, 1, 3, 3), group=6, strides=[1, 2])
    yield from _each("11", "line", "Conv", _x(2, 3, 12), _x(4, 3, 5), _x(4), pads=[2, 1])
    yield from _each("11", "cube", "Conv", _x(2, 3, 4, 5, 6), _x(4, 3, 2, 2, 3))
    for how in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        yield from _each("11", how, "Conv", x, _x(4, 6, 2, 3), auto_pad=how, strides=[2, 2])
    for name in ("MaxPool", "AveragePool"):
        versions = {"MaxPool": "1 8 10 11 12 22", "AveragePool": "7 10 11 19 22"}[name]
        yield from _each(versions, "padded", name, x, pads=[1, 0, 1, 1], strides=[2, 1], **wide)
        yield from _each(
            "11", "ceil", name, x, ceil_mode=1, strides=[2, 3], pads=[0, 1, 0, 1], **wide
        )
        yield from _each("11", "lower", name, x, auto_pad="SAME_LOWER", strides=[2, 2], **wide)
        yield from _each("11", "one", name, x, strides=[2, 3], kernel_shape=[1, 1])
        yield from _each("11", "line", name, _x(2, 3, 12), kernel_shape=[4])
    yield from _each("12", "dilated", "MaxPool", x, dilations=[2, 3], **wide)
    counted = {"count_include_pad": 1, "pads": [1, 1, 1, 1], "ceil_mode": 1, "strides": [2, 2]}
    yield from _each("11", "counted", "AveragePool", x, **counted, **square)


def _sizes() -> Iterator[Case]:
    x, scales = _x(2, 3, 4, 5), np.array([1, 1, 2, 3], np.float32)
    none = np.array([], np.float32)
    yield from _each("10", "nearest", "Resize", x, scales)
    yield from _each("9", "nearest", "Upsample", x, scales)
    yield from _each("7", "nearest", "Upsample", x, scales=[1.0, 1.0, 2.0, 3.0])
    for mode in ("nearest", "linear", "cubic"):
        yield from _each("11 13 18 19", mode, "Resize", x, none, scales, mode=mode)
        for how in ("asymmetric", "align_corners", "pytorch_half_pixel"):
            yield from _each(
                "13", f"{mode}-{how}", "Resize", x, none, None, _ints(2, 3, 7, 3),
                mode=mode, coordinate_transformation_mode=how,
            )  # fmt: skip
    for how in ("floor", "ceil", "round_prefer_ceil"):
        yield from _each("13", how, "Resize", x, none, scales, nearest_mode=how)
    yield from _each(
        "13",
        "outside",
        "Resize",
        x,
        none,
        scales,
        mode="cubic",
        exclude_outside=1,
        cubic_coeff_a=-0.5,
    )


def _recurrent() -> Iterator[Case]:
    time, batch, features, hidden = 5, 3, 4, 6
    x = _x(time, batch, features)
    for name, gates, states in (("LSTM", 4, 2), ("GRU", 3, 1), ("RNN", 1, 1)):
        count = {"outputs": states + 1, "hidden_size": hidden}

        def weights(directions: int, gates: int = gates) -> list[Array]:
            size = gates * hidden
            return [
                _x(directions, size, features, low=-1, high=1),
                _x(directions, size, hidden, low=-1, high=1),
                _x(directions, 2 * size),
            ]

        lengths = np.array([5, 2, 3], np.int32)
        yield from _each("7 14 22", "plain", name, x, *weights(1)[:2], **count)
        both = {"direction": "bidirectional"}
        start = [_x(2, batch, hidden) for _ in range(states)]
        yield from _each("14", "both-ways", name, x, *weights(2), None, *start, **both, **count)
        yield from _each("14", "lengths", name, x, *weights(2), lengths, *start, **both, **count)
        yield from _each("14", "reverse", name, x, *weights(1), direction="reverse", **count)
        yield from _each("14", "clipped", name, x, *weights(1), clip=0.5, **count)
    for reset in (0, 1):
        linear = {"linear_before_reset": reset, "hidden_size": 6, "outputs": 2}
        yield from _each(
            "14", f"linear-{reset}", "GRU", x, _x(1, 18, 4), _x(1, 18, 6), _x(1, 36), **linear
        )
    peep = [_x(1, 24, 4), _x(1, 24, 6), _x(1, 48), None, None, None, _x(1, 18)]
    yield from _each("14", "peepholes", "LSTM", x, *peep, hidden_size=6, outputs=3)
    other = {"activations": ["HardSigmoid", "Softsign", "Relu"], "hidden_size": 6, "outputs": 3}
    yield from _each("14", "activations", "LSTM", x, _x(1, 24, 4), _x(1, 24, 6), **other)


def _estimators() -> Iterator[Case]:
    x = _x(40, 4)
    ml = {"domain": ML}
    numbers = [float(n) for n in _x(12)]
    for how in ("NONE", "SOFTMAX", "LOGISTIC"):
        shared = {"post_transform": how, "outputs": 2, **ml}
        yield from _each(
            "1", f"three-{how}", "LinearClassifier", x, coefficients=numbers,
            intercepts=numbers[:3], classlabels_ints=[5, 2, 9], **shared,
        )  # fmt: skip
    for how in ("NONE", "LOGISTIC"):
        yield from _each(
            "1", f"one-{how}", "LinearClassifier", x, coefficients=numbers[:4],
            intercepts=[0.1], classlabels_ints=[3, 7], post_transform=how, outputs=2, **ml,
        )  # fmt: skip
    yield from _each(
        "1",
        "two",
        "LinearRegressor",
        x,
        coefficients=numbers[:8],
        intercepts=[0.5, 1.0],
        targets=2,
        **ml,
    )
    yield from _each("1", "columns", "Scaler", x, offset=numbers[:4], scale=numbers[4:8], **ml)
    zero = np.concatenate([x, np.zeros((1, 4), np.float32)])
    for norm in ("MAX", "L1", "L2"):
        yield from _each("1", norm, "Normalizer", zero, norm=norm, **ml)
    yield from _each("1", "columns", "ArrayFeatureExtractor", x, _ints(3, 0), **ml)
    words = np.array([["a"], ["b"], ["?"]])
    yield from _each(
        "2 4",
        "numbers",
        "LabelEncoder",
        words,
        keys_strings=["a", "b"],
        values_int64s=[4, 5],
        default_int64=-7,
        **ml,
    )
    yield from _each(
        "2 4",
        "words",
        "LabelEncoder",
        np.array([[1], [3]]),
        keys_int64s=[1, 2],
        values_strings=["a", "b"],
        **ml,
    )
    yield from _each("1", "words", "OneHotEncoder", words, cats_strings=["b", "a"], **ml)
    yield from _each(
        "1", "numbers", "OneHotEncoder", np.array([[3], [1]]), cats_int64s=[1, 2, 3], **ml
    )
    gaps = x.copy()
    gaps[0, 1] = gaps[3, 2] = np.nan
    imputed = {"imputed_value_floats": numbers[:4], "replaced_value_float": float("nan"), **ml}
    yield from _each("1", "gaps", "Imputer", gaps, **imputed)
    yield from _each("1", "half", "Binarizer", x, threshold=0.5, **ml)
    yield from _each("1", "two", "FeatureVectorizer", x, inputdimensions=[4], **ml)


def _trees() -> Iterator[Case]:
    """Two trees of depth 2 and 1; rows on the thresholds, and NaN."""
    nodes = {
        "nodes_treeids": [0] * 5 + [1] * 3,
        "nodes_nodeids": [0, 1, 2, 3, 4, 0, 1, 2],
        "nodes_featureids": [0, 1, 0, 0, 0, 2, 0, 0],
        "nodes_values": [0.5, -0.5, 0, 0, 0, 0.25, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", *["LEAF"] * 3, "BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 3, 0, 0, 0, 1, 0, 0],
        "nodes_falsenodeids": [2, 4, 0, 0, 0, 2, 0, 0],
        "nodes_missing_value_tracks_true": [0, 1, 0, 0, 0, 1, 0, 0],
    }
    leaves = {"treeids": [0, 0, 0, 1, 1], "nodeids": [2, 3, 4, 1, 2]}
    edge = np.array([[0.5, -0.5, 0.25], [0.50001, 0, 0.3], [np.nan, np.nan, np.nan]], np.float32)
    x = np.concatenate([_x(20, 3), edge])
    lt = nodes | {"nodes_modes": [m.replace("LEQ", "LT") for m in nodes["nodes_modes"]]}  # type: ignore[attr-defined]

    def weights(kind: str, ids: list[int], *values: float) -> dict[str, Any]:
        lists = {f"{kind}_{name}": value for name, value in leaves.items()}
        return lists | {f"{kind}_ids": ids, f"{kind}_weights": list(values)}

    ml = {"domain": ML}
    for how, tree in (("SUM", nodes), ("AVERAGE", lt)):
        # each leaf has each target: where none adds to one, ONNX Runtime leaves its base out
        pairs = {f"target_{key}": value * 2 for key, value in leaves.items()}
        amounts = [0.5, -1.25, 3, 0.75, -2, 1, 2, -3, 4, -5.5]
        targets = pairs | {"target_ids": [0] * 5 + [1] * 5, "target_weights": amounts}
        yield from _each(
            "1 3", how.lower(), "TreeEnsembleRegressor", x, **tree, **targets, n_targets=2,
            aggregate_function=how, base_values=[0.5, -0.5], **ml,
        )  # fmt: skip
    for labels in ({"classlabels_int64s": [4, 7, 9]}, {"classlabels_strings": ["a", "b", "c"]}):
        many = weights("class", [0, 1, 2, 1, 0], 0.5, 0.25, 0.75, 0.6, 0.3)
        for how in ("NONE", "SOFTMAX"):
            name = f"{next(iter(labels))[12:]}-{how}"
            yield from _each(
                "1 3", name, "TreeEnsembleClassifier", x, **nodes, **many, **labels,
                post_transform=how, outputs=2, **ml,
            )  # fmt: skip
    two = {"classlabels_int64s": [4, 7], "outputs": 2, **ml}
    signs = weights("class", [0] * 5, 0.5, -0.25, 0.75, -0.6, 0.3)
    for how in ("NONE", "LOGISTIC"):
        yield from _each(
            "3", f"one-score-{how}", "TreeEnsembleClassifier", x, **nodes, **signs,
            post_transform=how, base_values=[0.125], **two,
        )  # fmt: skip
    positive = weights("class", [0] * 5, 0.1, 0.2, 0.35, 0.25, 0.4)
    yield from _each("3", "one-share", "TreeEnsembleClassifier", x, **nodes, **positive, **two)


def all_cases() -> list[Case]:
    """Return every case; each version is one that ONNX itself knows for the operator."""
    parts = (
        _shapes,
        _margins,
        _arithmetic,
        _networks,
        _convolutions,
        _sizes,
        _recurrent,
        _estimators,
        _trees,
    )
    cases = [case for part in parts for case in part()]
    for case in cases:
        schema = defs.get_schema(case.operator, case.version, case.domain)
        assert schema.since_version == case.version, f"{case}: ONNX has no such version"
    return cases
