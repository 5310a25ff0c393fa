"""A diagnosis is shown as a ladder with the culprit and the way to reproduce it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.artifact import ModelFormat
from tasks.domain.diagnosis import Culprit, Diagnosis, Shrunk, StageVerdict
from tasks.locating import Located
from tasks.report import diagnosis_markdown, parity_html
from tasks.reproducers import reproducer_files, with_culprit
from tests.unit.test_report import HOSTILE, Reader, recipe, report

if TYPE_CHECKING:
    from pathlib import Path

CULPRIT = Culprit(
    node="node_conv2d_1", op_type="Conv", tensor="getitem_3", layer="layer1.0.bn2",
    max_abs=0.753, words="differs",
)  # fmt: skip


def _diagnosis(**changes: object) -> Diagnosis:
    made = Diagnosis(
        candidate=ModelFormat.ONNX,
        converter="torch-dynamo",
        stage="exporter's optimisation",
        step="fuse-batch-norm",
        verdicts=(
            StageVerdict(stage="raw export", passed=True, words="equal"),
            StageVerdict(
                stage="exporter's optimisation", step="fuse-batch-norm", passed=False, words=HOSTILE
            ),
            StageVerdict(stage="execution provider", passed=None, words="no such device"),
        ),
        words="first wrong after exporter's optimisation",
    )
    return made.model_copy(update=changes)


def test_the_page_shows_every_stage_the_culprit_and_how_to_reproduce_it() -> None:
    diagnosis = _diagnosis(culprit=CULPRIT, nodes=1, reproducer="reproducer-onnx-torch-dynamo")

    page = parity_html(
        recipe(), [report(ModelFormat.ONNX, stray=1)], failed="no", diagnoses=(diagnosis,)
    )

    text = Reader(page).text
    assert "What went wrong: ONNX, by torch-dynamo" in text
    assert "exporter's optimisation (fuse-batch-norm)" in text
    assert "layer1.0.bn2" in text
    assert "node_conv2d_1" in text
    assert "python reproducer-onnx-torch-dynamo/reproduce.py" in text
    assert HOSTILE not in page


def test_the_shrunk_input_is_shown_with_its_files() -> None:
    shrunk = Shrunk(
        probe="search", row=3, base="zeros", against=ModelFormat.TORCH, differing=1, elements=432,
        minimal=True, rounds=4, rows=40, folder="shrunk-onnx-x", words="1 of 432: x[0,3] = 65504.0",
    )  # fmt: skip
    diagnosis = _diagnosis(shrunk=shrunk)

    page = parity_html(
        recipe(), [report(ModelFormat.ONNX, stray=1)], failed="no", diagnoses=(diagnosis,)
    )

    for text in (Reader(page).text, diagnosis_markdown((diagnosis,))):
        assert "Shrunk input" in text
        assert "65504.0" in text
        assert "shrunk-onnx-x/inputs.npz" in text


def test_a_page_without_a_diagnosis_has_no_such_section() -> None:
    page = parity_html(recipe(), [report(ModelFormat.ONNX)], failed="no")

    assert "What went wrong" not in page


def test_prefect_gets_the_stages_in_order_and_the_command() -> None:
    text = diagnosis_markdown((_diagnosis(culprit=CULPRIT, reproducer="reproducer-onnx-x"),))

    assert text.index("✅ **raw export**") < text.index("❌ **exporter's optimisation")
    assert "python reproducer-onnx-x/reproduce.py" in text
    assert "<script>" not in text


def test_a_reproducer_is_kept_for_the_quarantine_under_its_candidate(tmp_path: Path) -> None:
    made, run = tmp_path / "made", tmp_path / "run"
    made.mkdir()
    (made / "reproduce.py").write_text("exit(1)")
    located = Located(culprit=CULPRIT, nodes=1, folder=made, words="Conv differs first")

    diagnosis = with_culprit(_diagnosis(), located, run)

    files = reproducer_files((diagnosis,), run)
    assert diagnosis.culprit == CULPRIT
    assert diagnosis.words.endswith("Conv differs first")
    assert list(files) == ["reproducer-onnx-torch-dynamo/reproduce.py"]
    assert files["reproducer-onnx-torch-dynamo/reproduce.py"].read_text() == "exit(1)"


def test_a_culprit_that_was_not_found_leaves_words_and_no_folder(tmp_path: Path) -> None:
    located = Located(culprit=None, words="no node could be looked for: no memory")

    diagnosis = with_culprit(_diagnosis(), located, tmp_path)

    assert diagnosis.reproducer == ""
    assert "no memory" in diagnosis.words
    assert reproducer_files((diagnosis,), tmp_path) == {}
