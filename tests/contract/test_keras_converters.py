"""What tf2onnx makes of Keras models and SavedModels, whatever their kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tasks.arrays import load_arrays, save_arrays
from tasks.converters import ConvertRequest, tf2onnx_cli, tf2onnx_saved_model
from tasks.domain.errors import ExportError, SignatureMismatchError
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.runners.keras_runner import KerasRunner
from tasks.sources import AcquireRequest
from tasks.sources.keras_applications import acquire
from tasks.tf2onnx_lean.convert import PASSES
from tests.support import keras_nets as nets
from tests.support.keras_nets import NetRequest, RunRequest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

REAL: dict[str, Any] = {"kind": "range", "low": -2, "high": 2}
SIGNATURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cnn": ({"images": (16, 16, 3)}, {"scores": (5,)}),
    "sequential": ({"x": (20,)}, {"y": (5,)}),
    "subclassed": ({"x": (64,)}, {"y": (64,)}),
    # the outputs' names sort the other way round
    "multi": ({"image": (8, 8, 3), "facts": (4,)}, {"zeta": (3,), "alpha": (2,)}),
    "distinct": ({"x": (64,)}, {"y": (128,)}),
    "equal": ({"x": (64,)}, {"y": (128,)}),
    "shared": ({"x": (64,)}, {"y": (128,)}),
    "half": ({"x": (64,)}, {"y": (3,)}),
    "words": ({"words": (6,)}, {"y": (3,)}),
}


def recipe_of(net: str, **changes: Any) -> Recipe:
    inputs, outputs = SIGNATURES[net]
    domain = {"kind": "range", "low": 0, "high": 499} if net == "words" else REAL
    dtype = "int32" if net == "words" else "float32"
    fields: dict[str, Any] = {
        "name": f"{net}-net",
        "description": "A test.",
        "licence": "none",
        "source": {"kind": "keras-applications", "model": "ResNet50"},
        "signature": {
            "inputs": [
                {"name": name, "dtype": dtype, "shape": ("batch", *shape), "domain": domain}
                for name, shape in inputs.items()
            ],
            "outputs": [
                {"name": name, "dtype": "float32", "shape": ("batch", *shape)}
                for name, shape in outputs.items()
            ],
        },
    }
    return Recipe.model_validate(fields | changes)


def call(stage: str, family: Family = Family.TENSORFLOW) -> Call:
    return Call(stage, "net", family, fails_as=ExportError)


def build(children: Children, net: str, folder: Path, seed: int = 0) -> Path:
    folder.mkdir()
    children.call(nets.build_net, NetRequest(net=net, seed=seed, folder=folder), call("build"))
    return folder


def convert(children: Children, recipe: Recipe, source: Path, folder: Path) -> Path:
    folder.mkdir()
    request = ConvertRequest(recipe=recipe, source=source, folder=folder)
    reply = children.call(nets.convert_net, request, call("export")).value
    assert reply.notes == ()  # else tf2onnx had to see the weights
    return folder / "model.onnx"


def rows(recipe: Recipe, count: int = 8) -> Arrays:
    random = np.random.default_rng(1)
    found: Arrays = {}
    for spec in recipe.signature.inputs:
        shape = (count, *(int(dim) for dim in spec.shape[1:]))
        if spec.dtype == "int32":
            found[spec.name] = random.integers(0, 500, shape, dtype=np.int32)
        else:
            found[spec.name] = random.uniform(-2, 2, shape).astype(spec.dtype)
    return found


def keras_answers(children: Children, recipe: Recipe, folder: Path, inputs: Arrays) -> Arrays:
    request = RunRequest(
        recipe=recipe, folder=folder, inputs=folder / "in.npz", answers=folder / "out.npz"
    )
    save_arrays(request.inputs, inputs)
    children.call(nets.run_net, request, call("run"))
    return load_arrays(request.answers)


def onnx_answers(path: Path, inputs: Arrays) -> Arrays:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def strays(reference: Arrays, candidate: Arrays) -> float:
    """Return the largest error, as a share of the output's largest magnitude."""
    assert list(reference) == list(candidate)
    return max(
        float(np.abs(reference[name] - candidate[name]).max() / np.abs(reference[name]).max())
        for name in reference
    )


@pytest.mark.parametrize("net", SIGNATURES)
def test_a_network_answers_as_keras_does_at_every_batch_size(
    children: Children, tmp_path: Path, net: str
) -> None:
    recipe = recipe_of(net)
    source = build(children, net, tmp_path / "source")
    inputs = rows(recipe)
    reference = keras_answers(children, recipe, source, inputs)

    path = convert(children, recipe, source, tmp_path / "onnx")

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True)
    assert [each.name for each in model.graph.input] == list(inputs)
    assert [each.name for each in model.graph.output] == list(reference)
    assert {each.version for each in model.opset_import if not each.domain} == {17}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    tolerance = 5e-3 if net == "half" else 1e-5
    for size in (1, 2, 3, 8):
        some = {name: each[:size] for name, each in inputs.items()}
        assert strays({k: v[:size] for k, v in reference.items()}, onnx_answers(path, some)) < (
            tolerance
        )
    (tmp_path / "other").mkdir()
    other = build(children, net, tmp_path / "other" / "source", seed=1)
    assert strays(keras_answers(children, recipe, other, inputs), onnx_answers(path, inputs)) > 0.05


def test_scales_and_shifts_behind_a_convolution_are_fused_into_it(
    children: Children, tmp_path: Path
) -> None:
    recipe = recipe_of("cnn")
    source = build(children, "cnn", tmp_path / "source")

    path = convert(children, recipe, source, tmp_path / "onnx")

    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("Conv") == 3
    assert "Mul" not in operators
    assert "BatchNormalization" not in operators


@pytest.mark.parametrize(("net", "kernels"), [("shared", 1), ("distinct", 2), ("equal", 2)])
def test_a_weight_is_stored_as_often_as_the_model_has_it(
    children: Children, tmp_path: Path, net: str, kernels: int
) -> None:
    recipe = recipe_of(net)
    source = build(children, net, tmp_path / "source")

    path = convert(children, recipe, source, tmp_path / "onnx")

    shapes = [tuple(each.dims) for each in onnx.load(path).graph.initializer]
    assert shapes.count((64, 64)) == kernels


def test_weights_that_no_single_file_can_hold_stand_beside_it(
    children: Children, tmp_path: Path
) -> None:
    recipe = recipe_of("cnn")
    source = build(children, "cnn", tmp_path / "source")
    inputs = rows(recipe)
    request = ConvertRequest(recipe=recipe, source=source, folder=tmp_path / "onnx")
    request.folder.mkdir()

    children.call(nets.convert_with_external_data, request, call("export"))

    path = request.folder / "model.onnx"
    onnx.checker.check_model(path, full_check=True)
    assert {each.name for each in request.folder.iterdir()} == {"model.onnx", "model.onnx.data"}
    reference = keras_answers(children, recipe, source, inputs)
    assert strays(reference, onnx_answers(path, inputs)) < 1e-5


def test_the_command_line_converts_as_well(children: Children, tmp_path: Path) -> None:
    recipe = recipe_of("multi", opset=15)
    source = build(children, "multi", tmp_path / "source")
    inputs = rows(recipe)
    request = ConvertRequest(recipe=recipe, source=source, folder=tmp_path / "onnx")
    request.folder.mkdir()

    children.call(tf2onnx_cli.convert, request, call("export"))

    path = request.folder / "model.onnx"
    reference = keras_answers(children, recipe, source, inputs)
    assert strays(reference, onnx_answers(path, inputs)) < 1e-5
    assert onnx.load(path).opset_import[0].version == 15


def test_an_opset_that_tf2onnx_cannot_write_is_refused(children: Children, tmp_path: Path) -> None:
    recipe = recipe_of("sequential", opset=20)
    source = build(children, "sequential", tmp_path / "source")

    with pytest.raises(ExportError, match=r"opsets 13 to 18 .*got 20"):
        convert(children, recipe, source, tmp_path / "onnx")


WRONG = {
    "a size that differs": {"inputs": {"x": (21,)}},
    "an axis too many": {"inputs": {"x": (20, 1)}},
    "one output too many": {"outputs": {"y": (5,), "z": (5,)}},
    "another output size": {"outputs": {"y": (6,)}},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_recipe_that_contradicts_the_model_is_one_clear_error(
    children: Children,
    tmp_path: Path,
    wrong: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = build(children, "sequential", tmp_path / "source")
    inputs, outputs = SIGNATURES["sequential"]
    changed = (wrong.get("inputs", inputs), wrong.get("outputs", outputs))
    monkeypatch.setitem(SIGNATURES, "sequential", changed)

    with pytest.raises(SignatureMismatchError, match=r"sequential-net: .*expected .*; got "):
        convert(children, recipe_of("sequential"), source, tmp_path / "onnx")


@pytest.fixture
def saved_model(children: Children, tmp_path: Path) -> Path:
    request = NetRequest(net="module", folder=tmp_path / "saved")
    children.call(nets.save_module, request, call("build", Family.TENSORFLOW_LEGACY))
    return request.folder


def saved_model_recipe(*outputs: tuple[str, tuple[Any, ...]], **source: str) -> Recipe:
    given = recipe_of("subclassed").model_dump()
    given["source"] = {
        "kind": "saved-model",
        "download": {"uri": "file:///none", "sha256": 64 * "0"},
        **source,
    }
    given["signature"]["outputs"] = [
        {"name": name, "dtype": "float32", "shape": shape} for name, shape in outputs
    ]
    return Recipe.model_validate(given)


def test_a_saved_model_answers_as_tensorflow_does(
    children: Children, tmp_path: Path, saved_model: Path
) -> None:
    recipe = saved_model_recipe(("wide", ("batch", 4_000)), ("narrow", ("batch",)))
    request = ConvertRequest(recipe=recipe, source=saved_model, folder=tmp_path / "onnx")
    request.folder.mkdir()
    inputs = rows(recipe)
    run = RunRequest(
        recipe=recipe, folder=saved_model, inputs=tmp_path / "i.npz", answers=tmp_path / "o.npz"
    )
    save_arrays(run.inputs, inputs)
    children.call(nets.run_module, run, call("run", Family.TENSORFLOW_LEGACY))
    answers = load_arrays(run.answers)
    reference = {name: answers[name] for name in ("wide", "narrow")}

    children.call(tf2onnx_saved_model.convert, request, call("export", Family.TENSORFLOW_LEGACY))

    path = request.folder / "model.onnx"
    assert strays(reference, onnx_answers(path, inputs)) < 1e-5
    wrong = {name: np.roll(each, 1, axis=0) for name, each in reference.items()}
    assert strays(wrong, onnx_answers(path, inputs)) > 0.05


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        pytest.param(
            saved_model_recipe(("wide", ("batch", 4_000)), ("thin", ("batch",))),
            r"signature.outputs: .*expected narrow, wide; got wide, thin",
            id="names-that-are-not-the-models",
        ),
        pytest.param(
            saved_model_recipe(("y", ("batch",)), signature="serve"),
            r"no 'serve' \(expected one of: serving_default\)",
            id="a-signature-that-is-not-there",
        ),
    ],
)
def test_a_recipe_that_contradicts_the_saved_model_is_one_clear_error(
    children: Children, tmp_path: Path, saved_model: Path, recipe: Recipe, words: str
) -> None:
    request = ConvertRequest(recipe=recipe, source=saved_model, folder=tmp_path / "onnx")
    request.folder.mkdir()

    with pytest.raises(SignatureMismatchError, match=words):
        children.call(
            tf2onnx_saved_model.convert, request, call("export", Family.TENSORFLOW_LEGACY)
        )


def test_importing_the_modules_imports_no_framework() -> None:
    assert KerasRunner.__module__ == "tasks.runners.keras_runner"
    assert not {"tensorflow", "keras", "tf2onnx"} & set(__import__("sys").modules)


@pytest.mark.slow
def test_a_whole_resnet50_takes_a_third_of_what_tf2onnx_takes(tmp_path: Path) -> None:
    recipe = recipe_of("cnn").model_dump()
    recipe["source"] = {"kind": "keras-applications", "model": "ResNet50", "head": "linear"}
    recipe["signature"]["inputs"][0]["shape"] = ("batch", 224, 224, 3)
    recipe["signature"]["outputs"][0]["shape"] = ("batch", 1_000)
    resnet = Recipe.model_validate(recipe)
    request = ConvertRequest(recipe=resnet, source=tmp_path / "source", folder=tmp_path / "onnx")
    request.source.mkdir()
    request.folder.mkdir()
    with Children(tmp_path) as children:
        acquired = AcquireRequest(recipe=resnet, downloads=(), folder=request.source)
        children.call(acquire, acquired, call("acquire"))
        children.retire(Family.TENSORFLOW)

        cost = children.call(nets.convert_net, request, call("export")).cost

        inputs = rows(resnet, count=2)
        reference = keras_answers(children, resnet, request.source, inputs)
    assert cost.peak_mb < 2_000
    answers = onnx_answers(request.folder / "model.onnx", inputs)
    assert strays(reference, answers) < 1e-5
    assert strays({name: each[::-1] for name, each in reference.items()}, answers) > 1e-2


def test_each_pass_of_tf2onnx_is_told_and_can_be_left_out(
    children: Children, tmp_path: Path
) -> None:
    recipe = recipe_of("cnn")
    source = build(children, "cnn", tmp_path / "source")
    inputs = rows(recipe)
    reference = keras_answers(children, recipe, source, inputs)

    replies = {}
    for name, passes in (("all", None), ("raw", ())):
        folder = tmp_path / name
        folder.mkdir()
        request = ConvertRequest(recipe=recipe, source=source, folder=folder, passes=passes)
        replies[name] = children.call(nets.convert_net, request, call("export")).value.passes

    assert [each.name for each in replies["all"]] == list(PASSES)
    assert replies["raw"] == ()
    changed = {each.name for each in replies["all"] if each.changed}
    assert {"optimize_transpose", "fold-weights"} <= changed
    assert "q_dq_optimizer" not in changed
    raw, every = (onnx.load(tmp_path / name / "model.onnx") for name in ("raw", "all"))
    assert len(raw.graph.node) > len(every.graph.node)
    for name in ("raw", "all"):
        answers = onnx_answers(tmp_path / name / "model.onnx", inputs)
        assert strays(reference, answers) < 1e-5
