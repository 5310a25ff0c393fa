"""Every operator version that we express answers what ONNX Runtime answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tasks.arrays import load_arrays, save_arrays
from tasks.isolation import Call, Children, Family
from tests.onnxtf.cases import Case, all_cases
from tests.onnxtf.in_child import Nothing, Ran, RunGraphs, list_operators, run_graphs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_CASES = {str(case): case for case in all_cases()}
_CALL = Call("test", "operators", Family.TENSORFLOW_LEGACY)
_WEIGHED = [name for name, case in _CASES.items() if any(
    w is not None and w.dtype.kind == "f" and w.size > 2 for w in case.weights
) and case.operator not in {"Resize", "Upsample"}]  # fmt: skip

# Versions that ONNX Runtime has no kernel for; each has the same function as another case.
_NOT_IN_ORT: set[str] = set()


@pytest.fixture(scope="module")
def answers(children: Children, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """Convert and run all cases in one child process."""
    root = tmp_path_factory.mktemp("operators")
    for name, case in _CASES.items():
        folder = root / name
        folder.mkdir()
        onnx.save(case.model(), folder / "model.onnx")
        save_arrays(folder / "inputs.npz", {"x": case.x})
    request = RunGraphs(folders=tuple(root / name for name in _CASES))
    return root, children.call(run_graphs, request, _CALL).value


def _expected(case: Case, change: float = 0.0) -> list[NDArray[Any]]:
    model = case.model(change).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": case.x}))


def _agree(got: NDArray[Any], wanted: NDArray[Any]) -> bool:
    if got.shape != wanted.shape:
        return False
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(got, wanted.astype(got.dtype)))
    return got.dtype == wanted.dtype and bool(
        np.allclose(got, wanted, rtol=1e-4, atol=2e-5, equal_nan=True)
    )


@pytest.mark.parametrize("name", _CASES)
def test_an_operator_answers_as_onnx_runtime_does(name: str, answers: tuple[Path, Ran]) -> None:
    folder, ran = answers
    expected = _expected(_CASES[name])

    got = load_arrays(folder / name / "answers.npz") if name not in ran.refused | ran.failed else {}

    assert (ran.refused | ran.failed).get(name) is None
    for index, wanted in enumerate(expected):
        assert _agree(got[str(index)], wanted), (got[str(index)], wanted)


@pytest.mark.parametrize("name", _WEIGHED)
def test_an_operator_with_other_weights_answers_otherwise(
    name: str, answers: tuple[Path, Ran]
) -> None:
    folder, _ = answers
    other = _expected(_CASES[name], change=0.05)

    got = load_arrays(folder / name / "answers.npz")

    assert not all(_agree(got[str(index)], wanted) for index, wanted in enumerate(other))


def test_every_operator_version_of_ours_has_a_case(children: Children) -> None:
    table = children.call(list_operators, Nothing(), _CALL).value
    known = {
        f"{each.domain} {each.name} {each.since_version}"
        for each in onnx.defs.get_all_schemas_with_history()
    }

    missing = set(table.ours) & known - {case.key for case in _CASES.values()}

    assert not missing - _NOT_IN_ORT
