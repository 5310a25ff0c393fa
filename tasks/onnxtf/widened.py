"""Operator versions that mean what the version before them meant.

ONNX gives an operator a new version when it accepts more element types, too, or when a
default is worded anew. ``tests/onnxtf`` holds each line to ONNX's own schemas: attributes,
inputs and outputs must be those of the elder version, but for the attributes named in
``GUARDED``, which must then be absent or have the value given there.

Source: https://github.com/onnx/onnx/blob/main/docs/Changelog.md
"""

from __future__ import annotations

WIDENED: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Constant", "Identity", "Size"), (19, 21, 23, 24, 25)),
    **dict.fromkeys(("If", "Loop", "Scan"), (16, 19, 21, 23, 24, 25)),
    **dict.fromkeys(("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh"), (22,)),
    **dict.fromkeys(("Cos", "Cosh", "Sin", "Sinh", "Tan"), (22,)),
    **dict.fromkeys(("Elu", "Selu", "Softplus", "Softsign", "ThresholdedRelu"), (22,)),
    **dict.fromkeys(("HardSigmoid", "HardSwish", "Dropout", "Det", "EyeLike"), (22,)),
    **dict.fromkeys(("ConvTranspose", "InstanceNormalization"), (22,)),
    **dict.fromkeys(("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"), (22,)),
    **dict.fromkeys(("GreaterOrEqual", "LessOrEqual", "LeakyRelu", "PRelu", "Where"), (16,)),
    "Cast": (19, 21, 23, 24, 25),
    "CastLike": (19, 21, 23, 24, 25),
    "ConstantOfShape": (20, 21, 23, 24, 25),
    "DequantizeLinear": (19, 21),
    "Equal": (19,),
    "IsInf": (20,),
    "IsNaN": (20,),
    "Round": (22,),
    "ScatterElements": (16, 18),
    "ScatterND": (16, 18),
    "TopK": (24,),
    "Transpose": (21, 23, 24, 25),
}
"""By operator, the versions that the handler of the version before them serves."""

GUARDED: dict[str, dict[str, tuple[object, ...]]] = {
    # these two concern only the 8-bit floats, to which ``to`` may not lead
    "Cast": {
        "to": (*range(1, 14), 16),
        "saturate": (0, 1),
        "round_mode": ("up", "down", "nearest"),
    },
    "CastLike": {"saturate": (0, 1), "round_mode": ("up", "down", "nearest")},
    "DequantizeLinear": {"block_size": (0,)},
    "RoiAlign": {"mode": ("avg",)},
    "Resize": {"antialias": (0,), "axes": (), "keep_aspect_ratio_policy": ("stretch",)},
    "ScatterElements": {"reduction": ("none",)},
    "ScatterND": {"reduction": ("none",)},
}
"""By operator, attributes that the elder handler would overlook, and the values it serves."""
