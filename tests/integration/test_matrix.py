"""Every way to run a file that runs here is run; the others say why they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import TensorProto, helper

from tasks.domain.artifact import ModelFormat
from tasks.domain.matrix import Cell
from tasks.domain.sources import SavedModelFolder
from tasks.matrix import MatrixJob, _judged, fill_matrix
from tasks.steps import matrix as step
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.compare import CompareRequest, compare
from tasks.steps.matrix import CellRequest, answer_by_reference, cost_of, rows_of
from tests.integration.conftest import save
from tests.integration.test_bisecting import wrong_bias
from tests.support.small_net import RECIPE, network

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.bisecting import Asked
    from tasks.domain.parity import ParityReport
    from tasks.domain.recipe import Recipe
    from tasks.isolation import Children


def _report(asked: Asked, tmp_path: Path) -> ParityReport:
    """Return the good network's comparison, which passes."""
    folder = tmp_path / "answered"
    folder.mkdir()
    names = tuple(each.name for each in asked.probes)
    request = AnswerRequest(
        recipe=RECIPE,
        format=ModelFormat.ONNX,
        model=tmp_path / "good",
        probes=asked.inputs,
        names=names,
        device="cpu",
        folder=folder,
    )
    runtime = answer(request).runtime
    return compare(
        CompareRequest(
            recipe=RECIPE,
            candidate=ModelFormat.ONNX,
            runtime=runtime,
            probes=asked.probes,
            reference=asked.answers,
            answers=folder,
        )
    )


def _job(asked: Asked, model: Path, children: Children, recipe: Recipe = RECIPE) -> MatrixJob:
    return MatrixJob(recipe, model, asked.inputs, asked.answers, children)


def test_a_good_model_is_right_in_every_way_that_runs_here(
    children: Children,
    asked: Asked,
    tmp_path: Path,
) -> None:
    report = _report(asked, tmp_path)

    matrix = fill_matrix(_job(asked, tmp_path / "good", children), report)

    assert [(str(each), each.passed) for each in matrix.cells] == [
        ("ONNX Runtime, optimisation off, CPU", True),
        ("ONNX Runtime, optimisation basic, CPU", True),
        ("ONNX Runtime, optimisation all, CPU", True),
        ("ONNX Runtime, optimisation all, CUDA", None),
        ("ONNX reference evaluator, CPU", True),
    ]
    assert matrix.passed
    assert all(each.budget is not None for each in matrix.cells if each.passed)
    missing = matrix.cells[3].words
    assert missing.startswith("not run: onnxruntime here has no CUDAExecutionProvider (installed: ")
    assert (matrix.probes, matrix.rows) == (("random",), 4)


def test_a_cell_that_differs_fails_the_whole_comparison_by_its_name(
    children: Children,
    asked: Asked,
    tmp_path: Path,
) -> None:
    report = _report(asked, tmp_path)
    # as if the comparison had run the good file, and every other way another one
    job = _job(asked, wrong_bias(tmp_path / "wrong"), children)

    failed = report.model_copy(update={"matrix": fill_matrix(job, report)})

    assert not failed.passed
    (off, basic, reference) = failed.reasons()
    assert off.startswith("ONNX Runtime, optimisation off, CPU: random/logits: ")
    assert basic.startswith("ONNX Runtime, optimisation basic, CPU: random/logits: ")
    assert reference.startswith("ONNX reference evaluator, CPU: random/logits: ")


def test_a_level_that_the_runtime_refuses_is_a_cell_that_fails(
    children: Children,
    asked: Asked,
    tmp_path: Path,
) -> None:
    report = _report(asked, tmp_path)
    net = network()
    net.graph.node[0].op_type = "NoSuchOperator"
    job = _job(asked, save(net, tmp_path / "unknown"), children)

    cells = fill_matrix(job, report).cells

    assert cells[0].passed is False
    assert "refuses the model (graph optimisation off)" in cells[0].words
    assert cells[-1].passed is None
    assert cells[-1].words.startswith("not run: it cannot: ")


def test_what_a_gpu_worker_compares_is_not_run_here(
    children: Children,
    asked: Asked,
    tmp_path: Path,
) -> None:
    report = _report(asked, tmp_path)
    both = RECIPE.model_copy(update={"device": "both"})

    cells = fill_matrix(_job(asked, tmp_path / "good", children, both), report).cells

    (cuda,) = [each for each in cells if each.provider == "CUDA"]
    assert cuda.passed is None
    assert cuda.words.startswith("not run here: a GPU worker compares it")


def test_a_comparison_that_failed_runs_nothing_more(
    children: Children,
    asked: Asked,
    tmp_path: Path,
) -> None:
    report = _report(asked, tmp_path).model_copy(update={"discriminates": False})

    (own,) = fill_matrix(_job(asked, tmp_path / "gone", children), report).cells

    assert (own.runtime, own.level, own.passed) == ("ONNX Runtime", "all", False)


def test_a_saved_model_has_cells_of_its_own(
    children: Children,
    asked: Asked,
    tmp_path: Path,
) -> None:
    report = _report(asked, tmp_path).model_copy(update={"candidate": ModelFormat.SAVED_MODEL})

    matrix = fill_matrix(_job(asked, tmp_path / "gone", children), report)

    assert [(each.runtime, each.passed) for each in matrix.cells] == [
        ("TensorFlow SavedModel", True), ("TensorFlow SavedModel", None), ("TFLite", None),
    ]  # fmt: skip
    assert matrix.cells[-1].words == "not run: not made"


def test_the_reference_evaluator_is_spared_what_would_take_long(
    asked: Asked,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = CellRequest(
        recipe=RECIPE,
        model=tmp_path / "good",
        probes=("random",),
        inputs=asked.inputs,
        answers=asked.answers,
    )
    monkeypatch.setattr(step, "LARGEST_COST", 1e5)

    assert answer_by_reference(request).words.endswith("multiplications (at most 1e+05 are)")

    monkeypatch.setattr(step, "LARGEST_BYTES", 100)

    assert answer_by_reference(request).words.startswith("not run: 0 MB")


def test_an_operator_that_the_reference_evaluator_gets_wrong_is_no_false_alarm(
    asked: Asked, tmp_path: Path
) -> None:
    net = network()
    net.graph.node[-1].op_type = "SVMClassifier"
    request = CellRequest(
        recipe=RECIPE,
        model=save(net, tmp_path / "svm"),
        probes=("random",),
        inputs=asked.inputs,
        answers=asked.answers,
    )

    cell = answer_by_reference(request)

    assert (cell.passed, cell.words) == (
        None, "not run: it is known to answer SVMClassifier wrongly",
    )  # fmt: skip


def test_large_rows_are_asked_by_two() -> None:
    (image,) = RECIPE.signature.inputs
    large = image.model_copy(update={"shape": ("batch", 3, 224, 224)})
    signature = RECIPE.signature.model_copy(update={"inputs": (large,)})

    assert rows_of(RECIPE) == 4
    assert rows_of(RECIPE.model_copy(update={"signature": signature})) == 2


def test_the_cost_of_a_matrix_product_is_its_multiplications() -> None:
    side = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 50])]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 20])]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [50, 20], [0.0] * 1000)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", side, out,
                              [weight])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])

    assert cost_of(model, rows=3) == 1000 + 3 * 20 * 50
    assert onnx.checker.check_model(model) is None


@pytest.mark.parametrize(
    ("faults", "passed"),
    [(("numbers",), None), (("numbers", "non-finite"), False), (("shape",), False)],
)
def test_another_levels_numbers_alone_are_told_of_a_saved_model_and_not_judged(
    faults: tuple[str, ...],
    passed: bool | None,  # noqa: FBT001 - what is expected
) -> None:
    download = {"uri": "file:///model.zip", "sha256": "0" * 64}
    source = SavedModelFolder.model_validate({"kind": "saved-model", "download": download})
    saved = RECIPE.model_copy(update={"source": source})
    cell = Cell(runtime="ONNX Runtime", level="off", passed=False, words="", faults=faults)

    assert _judged(saved, cell).passed is passed
    assert _judged(RECIPE, cell).passed is False
