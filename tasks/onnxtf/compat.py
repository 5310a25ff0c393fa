"""Stand-ins for the modules that onnx-tf imports and that no longer exist."""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any


def install() -> None:
    """Make ``import onnx_tf`` possible; call it before that, as often as you like."""
    # Keras 2 stands behind ``tf.keras``, of which onnx-tf uses what Keras 3 lacks
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    _restore_onnx_mapping()
    # tensorflow-addons is installed with onnx-tf and no longer imports beside today's Keras
    if "tensorflow_addons" not in sys.modules:
        seq2seq = _module("tensorflow_addons.seq2seq", hardmax=_hardmax)
        _module("tensorflow_addons", seq2seq=seq2seq)
    if "tensorflow_probability" not in sys.modules:
        distributions = _module("tensorflow_probability.distributions", Bernoulli=_Bernoulli)
        _module("tensorflow_probability", distributions=distributions)


def _module(name: str, **attributes: object) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    module.__dict__.update(attributes)
    sys.modules[name] = module
    return module


def _restore_onnx_mapping() -> None:
    """Rebuild ``onnx.mapping``, which onnx 1.19 removed, from the functions that replaced it."""
    import numpy as np
    import onnx
    from onnx import helper

    if hasattr(onnx, "mapping"):
        return
    types = list(helper.get_all_tensor_dtypes())
    numpy_types = {each: np.dtype(helper.tensor_dtype_to_np_dtype(each)) for each in types}
    storage = {each: int(helper.tensor_dtype_to_storage_tensor_dtype(each)) for each in types}
    fields = {}
    for each in storage.values():
        with suppress(KeyError):  # the narrow float types have no field of their own
            fields[each] = helper.tensor_dtype_to_field(each)
    mapping = _module(
        "onnx.mapping",
        TENSOR_TYPE_TO_NP_TYPE=numpy_types,
        NP_TYPE_TO_TENSOR_TYPE={each: int(number) for number, each in numpy_types.items()},
        TENSOR_TYPE_TO_STORAGE_TENSOR_TYPE=storage,
        STORAGE_TENSOR_TYPE_TO_FIELD=fields,
    )
    onnx.mapping = mapping
    helper.mapping = mapping


def _hardmax(logits: Any, name: str | None = None) -> Any:  # noqa: ANN401 - tensors have no stubs
    """Do what ``tensorflow_addons.seq2seq.hardmax`` did."""
    import tensorflow as tf

    logits = tf.convert_to_tensor(logits)
    depth = tf.shape(logits)[-1]
    return tf.one_hot(tf.argmax(logits, -1), depth, dtype=logits.dtype, name=name)


class _Bernoulli:
    """The part of ``tensorflow_probability.distributions.Bernoulli`` that onnx-tf uses."""

    def __init__(self, probs: Any, dtype: Any) -> None:  # noqa: ANN401
        self._probabilities = probs
        self._dtype = dtype

    def sample(self, seed: int | None = None) -> Any:  # noqa: ANN401
        """Draw ones with the given probabilities, zeros else."""
        import tensorflow as tf

        probabilities = tf.convert_to_tensor(self._probabilities)
        drawn = tf.random.uniform(tf.shape(probabilities), dtype=probabilities.dtype, seed=seed)
        return tf.cast(drawn < probabilities, self._dtype)
