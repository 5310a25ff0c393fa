"""The first of several ways that answers wrongly is named, whatever goes wrong there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from tasks.bisecting import Asked, Case, bisect, case_for, judge, runtime_ways, tensorflow_ways
from tasks.domain.artifact import ModelFormat
from tasks.domain.diagnosis import Way
from tasks.domain.parity import NoiseParity, OutputParity, ParityReport, ProbeParity
from tasks.domain.profiles import PROFILES
from tasks.domain.recipe import Limits
from tests.corpus.planting import at, change
from tests.integration.conftest import save
from tests.support.small_net import RECIPE, network

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.diagnosis import Stage
    from tasks.isolation import Children


def way(folder: Path, stage: Stage = "raw export", step: str = "", **changes: Any) -> Way:
    return Way(stage=stage, step=step, format=ModelFormat.ONNX, model=folder, **changes)


def wrong_bias(folder: Path) -> Path:
    net = network()
    change("b3", at(0, 40.0), net)
    return save(net, folder)


def case_of(asked: Asked, wrong: Way, children: Children, scratch: Path) -> Case:
    return case_for(wrong, None, asked, children, scratch)


def test_the_first_way_that_is_wrong_is_named_with_the_last_that_is_right(
    children: Children, asked: Asked, tmp_path: Path
) -> None:
    wrong = way(wrong_bias(tmp_path / "wrong"), "exporter's optimisation", "fuse")
    ways = [
        way(tmp_path / "good"),
        way(tmp_path / "good", "exporter's optimisation", "fold"),
        wrong,
        way(tmp_path / "good", "simplifier", "never reached"),
    ]
    case = case_of(asked, wrong, children, tmp_path)

    found = bisect(ways, case, children, tmp_path)

    assert found is not None
    assert found.good == ways[1]
    assert found.bad == wrong
    assert [(each.step, each.passed) for each in found.verdicts] == [
        ("", True), ("fold", True), ("fuse", False),
    ]  # fmt: skip
    assert "logits: " in found.verdicts[-1].words
    assert found.probe == "random"


def test_the_case_is_cut_to_the_rows_that_are_wrong(
    children: Children, asked: Asked, tmp_path: Path
) -> None:
    net = network()
    clip = helper.make_node("Clip", ["image", "", "top"], ["clipped"])
    net.graph.initializer.append(helper.make_tensor("top", TensorProto.FLOAT, [], [1.0]))
    net.graph.node[0].input[0] = "clipped"
    net.graph.node.insert(0, clip)
    wrong = way(save(net, tmp_path / "clips"))

    case = case_of(asked, wrong, children, tmp_path)

    assert (case.row, case.place, case.probe.rows) == (4, 1, 2)
    assert judge(wrong, case, children, tmp_path).passed is False


def test_where_every_way_is_right_there_is_nothing_to_name(
    children: Children, asked: Asked, tmp_path: Path
) -> None:
    good = way(tmp_path / "good")
    case = case_of(asked, good, children, tmp_path)

    ways = [good, *runtime_ways(tmp_path / "good", RECIPE)]

    assert [each.optimisation for each in ways] == ["off", "basic", "all"]
    assert bisect(ways, case, children, tmp_path) is None


def test_a_file_that_the_runtime_refuses_is_wrong_there(
    children: Children, asked: Asked, tmp_path: Path
) -> None:
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / "model.onnx").write_bytes(b"\x08\x08no model")
    refused = way(tmp_path / "garbage", "simplifier", "fold-constants")
    case = case_of(asked, refused, children, tmp_path)

    found = bisect([way(tmp_path / "good"), refused], case, children, tmp_path)

    assert found is not None
    assert found.bad == refused
    assert "is no ONNX model" in found.verdicts[-1].words


def test_a_way_that_takes_its_process_along_is_wrong_there(
    children: Children, asked: Asked, tmp_path: Path
) -> None:
    net = network()
    size = helper.make_tensor("size", TensorProto.INT64, [1], [2**30])
    net.graph.initializer.append(size)
    net.graph.node.insert(0, helper.make_node("ConstantOfShape", ["size"], ["huge"]))
    net.graph.node.insert(1, helper.make_node("ReduceMax", ["huge"], ["zero"], keepdims=0))
    net.graph.node.insert(2, helper.make_node("Add", ["image", "zero"], ["image_"]))
    net.graph.node[3].input[0] = "image_"
    dies = way(save(net, tmp_path / "huge"), "runtime optimisation", "basic")
    limited = RECIPE.model_copy(update={"limits": Limits(memory_mb=1_000)})
    case = case_of(asked, way(tmp_path / "good"), children, tmp_path)
    case = case.model_copy(update={"recipe": limited})

    found = bisect([way(tmp_path / "good"), dies], case, children, tmp_path)

    assert found is not None
    assert found.bad == dies
    assert "more than its limit of 1,000 MiB" in found.verdicts[-1].words


def test_a_provider_that_is_not_here_is_not_run_and_blames_nobody(
    children: Children, asked: Asked, tmp_path: Path
) -> None:
    both = RECIPE.model_copy(update={"device": "both"})
    case = case_of(asked, way(tmp_path / "good"), children, tmp_path)
    *_, cuda = runtime_ways(tmp_path / "good", both)

    verdict = judge(cuda, case, children, tmp_path)

    assert (verdict.stage, verdict.step, verdict.passed) == ("execution provider", "CUDA", None)
    assert verdict.words.startswith("not run: onnxruntime: device 'cuda' needs CUDA")


def test_a_saved_model_is_bisected_from_the_onnx_file_that_was_proven(tmp_path: Path) -> None:
    first, second = tensorflow_ways(tmp_path / "onnx", tmp_path / "saved_model")

    assert (first.format, first.optimisation) == (ModelFormat.ONNX, "all")
    assert (second.stage, second.format) == ("TensorFlow", ModelFormat.SAVED_MODEL)


def test_a_fault_that_only_the_noise_floor_sees_is_bisected_all_the_same(
    children: Children, asked: Asked, tmp_path: Path
) -> None:
    net = network()
    change("b3", lambda bias: bias * np.float32(1 + 2e-5), net)
    wrong = way(save(net, tmp_path / "wrong"))
    unheard = case_of(asked, wrong, children, tmp_path)
    assert judge(wrong, unheard, children, tmp_path).passed, "the profile does not see it"

    case = case_for(wrong, _noise_report(), asked, children, tmp_path)

    assert judge(wrong, case, children, tmp_path).passed is False
    assert judge(way(tmp_path / "good"), case, children, tmp_path).passed


def _noise_report() -> ParityReport:
    """Return a report in which the logits fail by the noise floor alone."""
    noise = NoiseParity(
        rows=8, own_max=1e-7, own_rms=5e-8, error_max=4e-6, error_rms=2e-6,
        ratio_max=8.4, ratio_rms=17, bound_max=10, bound_rms=6,
    )  # fmt: skip
    logits = OutputParity(
        name="logits", passed=False, reason="error against float64 is too large", shape=(8, 10),
        expected_shape=(8, 10), dtype="float32", expected_dtype="float32", total=80,
        mismatched=0, noise=noise, tolerance=PROFILES["float32-conv"].base,
    )  # fmt: skip
    return ParityReport(
        reference=ModelFormat.TORCH, candidate=ModelFormat.ONNX, runtime="onnxruntime",
        profile="float32-conv", tolerance=PROFILES["float32-conv"].base, discriminates=True,
        probes=(ProbeParity(probe="random", rows=8, outputs=(logits,)),),
    )  # fmt: skip
