"""What GPU workers offer, what a report says of two devices, and what is kept for another try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tasks import gpu_stages
from tasks.domain.artifact import Cost, ModelFormat, StoredFile, StoredTree
from tasks.domain.errors import ConfigurationError
from tasks.domain.matrix import Cell, Matrix
from tasks.domain.parity import OutputParity, ParityReport, ProbeParity
from tasks.domain.profiles import PROFILES
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.perform import _stage
from tasks.remote import GpuStage
from tasks.resume import _is_worth_keeping
from tasks.runners.onnxruntime_runner import OnnxruntimeRunner
from tasks.trees import content_of, trees_in
from tests.flows.conftest import LINEAR, forget_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

STAGES = [each for each in vars(gpu_stages).values() if isinstance(each, GpuStage)]
TREE = StoredTree(
    root="work/r/a", files=(StoredFile(key="work/r/a/x", sha256="0" * 64, size_bytes=1),)
)


def report(*, passed: bool = True, on_cuda: ParityReport | None = None) -> ParityReport:
    output = OutputParity(
        name="scores",
        passed=passed,
        reason="" if passed else "1 of 3 elements differ",
        shape=(1, 3),
        expected_shape=(1, 3),
        dtype="float32",
        expected_dtype="float32",
        total=3,
        mismatched=0 if passed else 1,
    )
    return ParityReport(
        reference=ModelFormat.TORCH,
        candidate=ModelFormat.ONNX,
        runtime="onnxruntime",
        profile="float32-conv",
        tolerance=PROFILES["float32-conv"].base,
        probes=(ProbeParity(probe="random", rows=1, outputs=(output,)),),
        discriminates=True,
        on_cuda=on_cuda,
    )


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_worker_finds_each_stage_by_its_name_and_knows_its_values(
    stage: GpuStage[Any, Any],
) -> None:
    assert _stage(stage.name) is stage
    assert all(issubclass(each, Value) for each in stage.types)


@pytest.mark.parametrize("name", ["os:getcwd", "tasks.gpu_stages:absent", "no.such:thing", ""])
def test_a_worker_runs_nothing_that_is_not_a_stage(name: str) -> None:
    with pytest.raises(ConfigurationError, match="has no such GPU stage"):
        _stage(name or "tasks")


def test_a_report_on_two_devices_passes_only_if_both_do() -> None:
    good, bad = report(on_cuda=report()), report(on_cuda=report(passed=False))

    assert good.passed
    assert "on CUDA" in good.summary()
    assert not bad.passed
    assert bad.reasons() == ("on CUDA: random/scores: 1 of 3 elements differ",)
    assert ParityReport.model_validate_json(bad.model_dump_json()) == bad


def test_the_report_says_provider_threads_and_that_tf32_is_off() -> None:
    class Session(NamedTuple):
        """As much of a CUDA session as the words need."""

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def get_provider_options(self) -> Mapping[str, Mapping[str, str]]:
            return {"CUDAExecutionProvider": {"use_tf32": "0"}}

    words = OnnxruntimeRunner(Recipe.model_validate(LINEAR), Session()).runtime

    assert "CUDAExecutionProvider (" in words
    assert " thread" in words
    assert words.endswith(", TF32 off)")


def test_every_tree_of_a_value_is_found_however_deep() -> None:
    class Inner(Value):
        trees: dict[str, tuple[StoredTree, ...]]

    class Outer(Value):
        inner: Inner | None
        tree: StoredTree | None = None

    assert list(trees_in(Outer(inner=Inner(trees={"a": (TREE,), "b": ()})))) == [TREE]
    assert list(trees_in(Outer(inner=None, tree=TREE))) == [TREE]


def test_the_matrix_takes_the_gpus_own_cell_and_leaves_the_others() -> None:
    cpu = Cell(runtime="ONNX Runtime", level="all", passed=True, words="equal on 8 rows")
    absent = cpu.model_copy(update={"provider": "CUDA", "passed": None, "words": "not run: why"})
    there = absent.model_copy(update={"passed": True, "words": "equal on 8 rows"})
    elsewhere = Matrix(cells=(cpu.model_copy(update={"words": "of the other machine"}), there))

    assert Matrix(cells=(cpu, absent)).filled(elsewhere, provider="CUDA").cells == (cpu, there)


def test_the_same_work_has_the_same_content_wherever_its_files_stand_and_whatever_it_took() -> None:
    class Made(Value):
        tree: StoredTree
        cost: Cost

    def made(root: str, sha256: str, seconds: float) -> str:
        file = StoredFile(key=f"{root}/model.onnx", sha256=sha256, size_bytes=1)
        return content_of(
            Made(tree=StoredTree(root=root, files=(file,)), cost=Cost(seconds=seconds))
        )

    first = made("work/r/onnx-1", "a" * 64, 1.0)

    assert made("work/r/onnx-2", "a" * 64, 2.0) == first
    assert made("work/r/onnx-1", "b" * 64, 1.0) != first


@pytest.mark.parametrize(
    ("least", "seconds", "megabytes", "verdict"),
    [
        ("30", 29, 0, "done again"),
        ("30", 31, 0, "kept"),
        ("30", 41, 2400, "done again"),
        ("30", 90, 2400, "kept"),
        ("0", 0, 2400, "kept"),
    ],
)
def test_a_stage_is_kept_for_another_try_if_doing_it_again_takes_longer_than_sending_it(
    least: str, seconds: float, megabytes: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Made(Value):
        tree: StoredTree

    monkeypatch.setenv("CONVEYOR_KEEP_AFTER_SECONDS", least)
    forget_settings()
    file = StoredFile(key="work/r/a/x", sha256="0" * 64, size_bytes=megabytes * 1_000_000)

    made = Made(tree=StoredTree(root="work/r/a", files=(file,)))

    assert _is_worth_keeping(made, seconds) is (verdict == "kept")
