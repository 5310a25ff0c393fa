"""ONNX's own tests of every operator: what converts answers rightly, the rest is refused aloud."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from tasks.arrays import load_arrays, save_arrays
from tasks.isolation import Call, Children, Family
from tests.onnxtf.in_child import RunGraphs, run_graphs

if TYPE_CHECKING:
    from pathlib import Path

_NEWEST_OPSET = 26
_EXPRESSED = 500
"""Of about 900; fewer would mean that something was lost."""
_COARSE = {"float16": 4e-3, "bfloat16": 2e-2}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # in ONNX's making of expected values
]


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def _write(folder: Path, model: onnx.ModelProto, arrays: list[Any]) -> None:
    """Write a graph whose first input is one, and whose other inputs are weights."""
    model = copy.deepcopy(model)
    inputs = list(model.graph.input)
    del model.graph.input[1:]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), each.name)
        for each, value in zip(inputs[1:], arrays[1:], strict=True)
    )
    model.ir_version = max(model.ir_version, 4)
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    save_arrays(folder / "inputs.npz", {inputs[0].name: arrays[0]} if inputs else {})


def _cases(root: Path) -> dict[str, list[Any]]:
    """Write every test that has arrays on both sides; return what each should answer."""
    wanted = {}
    for case in collect_testcases(None):
        inputs, outputs = ([_array(each) for each in side] for side in case.data_sets[0])
        opset = max(each.version for each in case.model.opset_import)
        plain = all(isinstance(each, np.ndarray) for each in (*inputs, *outputs))
        typed = all(each.dtype.kind in "biufOUS" for each in (*inputs, *outputs) if plain)
        alone = len(case.model.graph.node) == 1  # others spell an operator out in older ones
        if alone and plain and typed and opset <= _NEWEST_OPSET and len(case.data_sets) == 1:
            _write(root / case.name, case.model, inputs)
            wanted[case.name] = outputs
    return wanted


def _equal(got: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> bool:
    if got.shape != wanted.shape:
        return False
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(got, wanted.astype(got.dtype)))
    rough = max(_COARSE.get(wanted.dtype.name, 1e-3), 1e-3)
    return bool(np.allclose(got, wanted, rtol=rough, atol=rough / 100, equal_nan=True))


def test_no_operator_answers_wrongly_in_silence(children: Children, tmp_path: Path) -> None:
    wanted = _cases(tmp_path)
    call = Call("test", "onnx's node tests", Family.TENSORFLOW_LEGACY)
    request = RunGraphs(folders=tuple(tmp_path / name for name in wanted))

    ran = children.call(run_graphs, request, call).value

    done = wanted.keys() - ran.refused.keys() - ran.failed.keys()
    wrong = {
        name
        for name in done
        for index, output in enumerate(wanted[name])
        if not _equal(load_arrays(tmp_path / name / "answers.npz")[str(index)], output)
    }
    assert not wrong
    assert len(done) > _EXPRESSED
