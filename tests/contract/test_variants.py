"""Every variant keeps the model's signature and its answers, or is refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.errors import ConfigurationError, ExportError
from tasks.domain.recipe import Recipe
from tasks.domain.release import ProbeInfo
from tasks.domain.variant_rules import worth
from tasks.isolation import Call, Children, Family
from tasks.steps.calibration import CALIBRATION, CalibrationRequest, collect_calibration
from tasks.steps.judge_variant import JudgeReply, JudgeRequest, judge_variant
from tasks.steps.race import RaceRequest, race
from tasks.steps.verify_onnx import VerifyOnnxRequest, verify_onnx
from tasks.variants import VariantRequest, make_variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALL = Call("variant", "net", Family.ONNXRUNTIME, fails_as=ExportError)
KINDS = ["float16", "bfloat16", "int8"]
CLASSES = 10


def net_recipe(variant: Any = "float16", **changes: Any) -> Recipe:
    image = {"name": "x", "dtype": "float32", "shape": ["batch", 1, 8, 8]}
    scores = {"name": "y", "dtype": "float32", "shape": ["batch", CLASSES], "role": "logits"}
    return Recipe.model_validate(
        {
            "name": "net",
            "description": "A small net.",
            "licence": "none",
            "source": {"kind": "train-torch", "dataset": "digits", "network": "cnn"},
            "signature": {
                "inputs": [image | {"domain": {"kind": "range", "low": 0, "high": 1}}],
                "outputs": [scores],
            },
            "opset": 17,
            "parity": {"real": {"kind": "held-out", "at_most": 16}},
            "variants": [variant],
        }
        | changes
    )


def weights(gain: float = 1.0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    made = {
        "kernel": rng.normal(size=(16, 1, 3, 3)) * gain,
        "dense": rng.normal(size=(16 * 64, CLASSES)) / 32,
        "down": np.array([1 / gain]),
        "head": np.eye(CLASSES) + 0.1,
    }
    return {name: each.astype(np.float32) for name, each in made.items()}


def write_net(
    folder: Path, held: dict[str, NDArray[np.float32]] | None = None, *, apart: bool = False
) -> Path:
    """Write Conv, Relu, Gemm and Mul as ``model.onnx``; ``apart``: with its weights beside it."""
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "dense"], ["d"], "dense_1"),
        helper.make_node("Mul", ["d", "down"], ["s"], "scale"),
        helper.make_node("MatMul", ["s", "head"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(each, name) for name, each in (held or weights()).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "model.onnx", save_as_external_data=apart, location="model.onnx.data")
    return folder


def rows(count: int = 16, scale: float = 1.0) -> NDArray[np.float32]:
    return np.random.default_rng(7).random((count, 1, 8, 8), np.float32) * np.float32(scale)


def made(
    children: Children, tmp_path: Path, variant: Any, source: Path, calibration: Any = None
) -> tuple[Path, tuple[str, ...]]:
    recipe = net_recipe(variant)
    folder, scratch = tmp_path / "made", tmp_path / "scratch"
    for each in (folder, scratch):
        each.mkdir()
    (tmp_path / "probes").mkdir()
    save_arrays(tmp_path / "probes" / "random.npz", {"x": rows()})
    save_arrays(tmp_path / CALIBRATION, {"x": rows() if calibration is None else calibration})
    request = VariantRequest(
        recipe=recipe,
        spec=recipe.variants[0],
        source=source,
        folder=folder,
        scratch=scratch,
        probes=tmp_path / "probes",
        calibration=tmp_path / CALIBRATION,
    )
    return folder, children.call(make_variant, request, CALL).value.notes


def answers(folder: Path, given: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": rows() if given is None else given})[0])


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("apart", [False, True], ids=["one-file", "external-data"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_variant_is_smaller_sound_and_answers_nearly_the_same(
    children: Children, tmp_path: Path, kind: str, *, apart: bool
) -> None:
    source = write_net(tmp_path / "net", apart=apart)

    folder, _ = made(children, tmp_path, kind, source)

    request = VerifyOnnxRequest(recipe=net_recipe(kind), model=folder)
    facts = children.call(verify_onnx, request, CALL).value.facts
    assert facts.opsets == {"ai.onnx": 17}
    assert size_of(folder) < 0.7 * size_of(source)
    right, got = answers(source), answers(folder)
    assert not np.array_equal(got, right)
    np.testing.assert_allclose(got, right, atol=0.03 * np.abs(right).max())
    assert sorted(each.name for each in source.iterdir()) == sorted(
        ["model.onnx", *(["model.onnx.data"] if apart else [])]
    )


# --- float16 -----------------------------------------------------------------------------------


def judged(
    children: Children, tmp_path: Path, recipe: Recipe, source: Path, variant: Path
) -> JudgeReply:
    for name, folder in (("reference", source), ("answers", variant)):
        (tmp_path / name).mkdir()
        for probe in ("held-out", "random"):
            save_arrays(tmp_path / name / f"{probe}.npz", {"y": answers(folder)})
    request = JudgeRequest(
        recipe=recipe,
        spec=recipe.variants[0],
        runtime="onnxruntime",
        probes=tuple(ProbeInfo(name=each, rows=16, about="") for each in ("held-out", "random")),
        reference=tmp_path / "reference",
        answers=tmp_path / "answers",
    )
    return children.call(judge_variant, request, CALL).value


def test_an_activation_beyond_float16_is_found_though_a_cpu_hides_it(
    children: Children, tmp_path: Path
) -> None:
    source = write_net(tmp_path / "net", weights(gain=20_000))

    with pytest.raises(ExportError, match=r"node 'conv' reaches .* on the probe 'random'"):
        made(children, tmp_path, "float16", source)

    kept = {"kind": "float16", "keep_float32": ["conv", "Relu", "Flatten", "dense_1", "scale"]}
    (tmp_path / "again").mkdir()
    folder, _ = made(children, tmp_path / "again", kept, source)
    np.testing.assert_allclose(answers(folder), answers(source), rtol=1e-2, atol=1e-2)


def test_infinity_in_the_answers_fails_parity(children: Children, tmp_path: Path) -> None:
    source, broken = write_net(tmp_path / "net"), weights()
    broken["down"] = np.array([np.inf], np.float32)

    verdict = judged(
        children, tmp_path, net_recipe(), source, write_net(tmp_path / "broken", broken)
    )

    assert not verdict.report.passed
    assert verdict.report.probes[0].outputs[0].non_finite_mismatched


def test_a_good_float16_model_passes_its_profile_and_agrees(
    children: Children, tmp_path: Path
) -> None:
    source = write_net(tmp_path / "net")

    folder, _ = made(children, tmp_path, "float16", source)

    verdict = judged(children, tmp_path, net_recipe("float16"), source, folder)
    assert verdict.report.passed, verdict.report.reasons()
    assert (verdict.agreement.rows, verdict.agreement.top1_equal) == (16, 16)
    assert verdict.agreement.on == "held-out"


def test_a_weight_beyond_float16_is_named_and_can_stay(children: Children, tmp_path: Path) -> None:
    source = write_net(tmp_path / "net", weights(gain=1e6))

    with pytest.raises(ExportError, match=r"weight 'kernel' holds .*beyond the largest float16"):
        made(children, tmp_path, "float16", source)

    kept = {"kind": "float16", "keep_float32": ["conv", "Relu", "Flatten", "dense_1", "scale"]}
    (tmp_path / "again").mkdir()
    folder, _ = made(children, tmp_path / "again", kept, source)
    np.testing.assert_allclose(answers(folder), answers(source), rtol=1e-2, atol=1e-2)


def test_a_model_without_weights_has_nothing_to_gain_in_float16(
    children: Children, tmp_path: Path
) -> None:
    every = {"kind": "float16", "keep_float32": ["Conv", "Relu", "Flatten", "MatMul", "Mul"]}

    with pytest.raises(ExportError, match="no float32 weight that could be float16"):
        made(children, tmp_path, every, write_net(tmp_path / "net"))


def test_weights_that_lose_digits_in_float16_are_told(children: Children, tmp_path: Path) -> None:
    held = weights()
    held["dense"] *= np.float32(1e-5)
    source = write_net(tmp_path / "net", held)

    _, notes = made(children, tmp_path, "float16", source)

    assert any("weights are subnormal in float16" in note for note in notes)


# --- bfloat16 ----------------------------------------------------------------------------------


def test_weights_are_stored_in_bfloat16_and_small_ones_stay(
    children: Children, tmp_path: Path
) -> None:
    folder, notes = made(children, tmp_path, "bfloat16", write_net(tmp_path / "net"))

    held = onnx.load(folder / "model.onnx").graph.initializer
    assert {each.name: each.data_type for each in held} == {
        "kernel_bfloat16": TensorProto.BFLOAT16,
        "dense_bfloat16": TensorProto.BFLOAT16,
        "head_bfloat16": TensorProto.BFLOAT16,
        "down": TensorProto.FLOAT,
    }
    assert "arithmetic is float32" in notes[0]


def test_bfloat16_needs_an_opset_that_casts_it(children: Children, tmp_path: Path) -> None:
    source = write_net(tmp_path / "net")
    model = onnx.load(source / "model.onnx")
    model.opset_import[0].version = 12
    onnx.save(model, source / "model.onnx")

    with pytest.raises(ExportError, match="opset 12 casts no bfloat16"):
        made(children, tmp_path, "bfloat16", source)


# --- int8 --------------------------------------------------------------------------------------


def scales(folder: Path) -> dict[str, NDArray[np.float32]]:
    held = onnx.load(folder / "model.onnx").graph.initializer
    return {each.name: numpy_helper.to_array(each) for each in held if each.name.endswith("_scale")}


def test_the_calibration_rows_set_the_scales(children: Children, tmp_path: Path) -> None:
    source = write_net(tmp_path / "net")
    found = []
    for i, times in enumerate((1.0, 4.0)):
        (tmp_path / str(i)).mkdir()
        folder, _ = made(children, tmp_path / str(i), "int8", source, rows(scale=times))
        found.append(scales(folder))

    assert found[1]["x_scale"] == pytest.approx(4 * found[0]["x_scale"], rel=1e-3)
    assert np.array_equal(found[0]["dense_scale"], found[1]["dense_scale"])
    assert found[0]["dense_scale"].shape == (CLASSES,)


def test_what_is_kept_in_float32_is_not_quantised(children: Children, tmp_path: Path) -> None:
    variant = {"kind": "int8", "keep_float32": ["MatMul"], "per_channel": False}

    folder, notes = made(children, tmp_path, variant, write_net(tmp_path / "net"))

    found = scales(folder)
    assert "dense_scale" not in found
    assert found["kernel_scale"].shape == ()
    assert "by tensor" in notes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_the_model_does_not_have_is_told(
    children: Children, tmp_path: Path, kind: str
) -> None:
    variant = {"kind": kind, "keep_float32": ["Softmax"]}

    with pytest.raises(ExportError, match="no operator or node 'Softmax'"):
        made(children, tmp_path, variant, write_net(tmp_path / "net"))


def test_a_model_with_nothing_to_quantise_is_told(children: Children, tmp_path: Path) -> None:
    variant = {"kind": "int8", "keep_float32": ["Conv", "Relu", "Flatten", "MatMul", "Mul"]}

    with pytest.raises(ExportError, match="nothing of it can be quantised"):
        made(children, tmp_path, variant, write_net(tmp_path / "net"))


def test_a_tiny_model_grows_when_it_is_quantised_and_is_refused(
    children: Children, tmp_path: Path
) -> None:
    held = weights()
    held["kernel"], held["dense"] = held["kernel"][:1], held["dense"][:64]
    source = write_net(tmp_path / "net", held)

    folder, _ = made(children, tmp_path, "int8", source)

    kept, words = worth(size_of(source), size_of(folder), None)
    assert not kept
    assert "neither smaller nor faster than its parent" in words


# --- calibration rows, judging and timing ------------------------------------------------------


@pytest.mark.parametrize("probe", ["held-out", "pictures"])
def test_rows_that_calibrate_do_not_judge(children: Children, tmp_path: Path, probe: str) -> None:
    everything = rows(40)
    save_arrays(tmp_path / f"{probe}.npz", {"x": everything[:16]})
    save_arrays(tmp_path / "kept.npz", {"x": everything, "labels": np.arange(40)})
    (tmp_path / "out").mkdir()
    request = CalibrationRequest(
        recipe=net_recipe(),
        rows=64,
        probes=tmp_path,
        names=("random", probe),
        held_out=tmp_path / "kept.npz",
        folder=tmp_path / "out",
    )

    reply = children.call(collect_calibration, request, Call("rows", "net", Family.LIGHT)).value

    taken = load_arrays(tmp_path / "out" / CALIBRATION)["x"]
    expected = everything[16:] if probe == "held-out" else everything[8:16]
    np.testing.assert_array_equal(taken, expected)
    assert reply.judged == (16 if probe == "held-out" else 8)


def test_without_real_rows_nothing_is_calibrated(children: Children, tmp_path: Path) -> None:
    request = CalibrationRequest(
        recipe=net_recipe(), rows=8, probes=tmp_path, names=("random",), held_out=None,
        folder=tmp_path,
    )  # fmt: skip

    with pytest.raises(ConfigurationError, match="no probe of real rows"):
        children.call(collect_calibration, request, Call("rows", "net", Family.LIGHT))


def test_int8_is_judged_on_real_rows_and_only_sound_elsewhere(
    children: Children, tmp_path: Path
) -> None:
    recipe = net_recipe("int8")
    right = np.eye(CLASSES, dtype=np.float32)
    (tmp_path / "right").mkdir()
    (tmp_path / "got").mkdir()
    for probe, far in (("held-out", 0.0), ("random", 3.0)):
        save_arrays(tmp_path / "right" / f"{probe}.npz", {"y": right})
        save_arrays(tmp_path / "got" / f"{probe}.npz", {"y": right + np.float32(far)})
    save_arrays(tmp_path / "kept.npz", {"x": rows(10), "labels": np.arange(CLASSES)})
    request = JudgeRequest(
        recipe=recipe,
        spec=recipe.variants[0],
        runtime="onnxruntime",
        probes=tuple(ProbeInfo(name=each, rows=10, about="") for each in ("held-out", "random")),
        reference=tmp_path / "right",
        answers=tmp_path / "got",
        judged=6,
        held_out=tmp_path / "kept.npz",
    )

    reply = children.call(judge_variant, request, CALL).value

    assert reply.report.passed
    assert [(each.probe, each.rows) for each in reply.report.probes] == [("held-out", 6)]
    assert (reply.agreement.rows, reply.agreement.accuracy) == (6, 1.0)


def test_a_race_runs_both_in_turns_on_one_row(children: Children, tmp_path: Path) -> None:
    source = write_net(tmp_path / "net")
    save_arrays(tmp_path / "held-out.npz", {"x": rows()})
    request = RaceRequest(
        recipe=net_recipe(),
        parent=source / "model.onnx",
        variant=source / "model.onnx",
        probe=tmp_path / "held-out.npz",
        device="cpu",
    )

    result = children.call(race, request, CALL).value

    assert 9 <= result.pairs <= 31
    assert result.parent_ms > 0
    assert "CPUExecutionProvider" in result.on
