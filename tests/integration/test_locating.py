"""The node that was made wrong is named, cut out and reproduced, for each source framework."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tasks.arrays import load_arrays
from tasks.converters import ConvertRequest, convert_function
from tasks.domain.artifact import ModelFormat
from tasks.domain.diagnosis import Bisection, Way
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children
from tasks.locating import Located, locate
from tasks.runners import FAMILIES
from tasks.runners.onnxruntime_runner import open_session, run_session
from tasks.sources import SOURCES, AcquireRequest
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.probes import ProbesRequest, make_probes
from tests.support import keras_nets
from tests.support.keras_nets import NetRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RANGE = {"kind": "range", "low": -2, "high": 2}


def _recipe(source: dict[str, Any], given: list[Any], outputs: list[dict[str, Any]]) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "model",
            "description": "One of several.",
            "licence": "none",
            "source": source,
            "signature": {
                "inputs": [
                    {"name": "x", "dtype": "float32", "shape": ["batch", *given], "domain": RANGE}
                ],
                "outputs": outputs,
            },
            "opset": 18,
        }
    )


TORCH = _recipe(
    {"kind": "train-torch", "dataset": "digits", "network": "cnn", "epochs": 1}
    | {"minimum_accuracy": 0.2},
    [1, 8, 8],
    [{"name": "scores", "dtype": "float32", "shape": ["batch", 10]}],
)
KERAS = _recipe(
    {"kind": "keras-applications", "model": "ResNet50"},
    [16, 16, 3],
    [{"name": "scores", "dtype": "float32", "shape": ["batch", 5]}],
)
SKLEARN = _recipe(
    {
        "kind": "train-sklearn",
        "dataset": "iris",
        "steps": [
            {"estimator": "sklearn.preprocessing.StandardScaler"},
            {"estimator": "sklearn.linear_model.LogisticRegression"},
        ],
    },
    [4],
    [
        {"name": "label", "dtype": "int64", "shape": ["batch"], "role": "labels"},
        {"name": "shares", "dtype": "float32", "shape": ["batch", 3], "role": "probabilities"},
    ],
)


@dataclass
class Bench:
    """A source model, its good ONNX file, and what it answers to one probe."""

    recipe: Recipe
    format: ModelFormat
    folder: Path
    children: Children

    def locate(self, bad: Path, scratch: Path, *, good: Path | None = None) -> Located:
        """Say only that ``bad`` is wrong, on the row where it is most so."""
        way = Way(stage="raw export", format=ModelFormat.ONNX, model=bad)
        bisection = Bisection(
            good=None if good is None else way.model_copy(update={"model": good}),
            bad=way,
            probe="random",
            row=self.worst_row(bad),
            verdicts=(),
        )
        return locate(
            self.recipe, bisection, self.folder / "source", self.format, self.folder / "probes",
            self.folder / "reference", self.children, scratch,
        )  # fmt: skip

    def worst_row(self, bad: Path) -> int:
        reference = load_arrays(self.folder / "reference" / "random.npz")
        session = open_session("bad", bad / "model.onnx", optimisation="off")
        got = run_session(session, load_arrays(self.folder / "probes" / "random.npz"))
        errors = [
            np.nan_to_num(
                np.abs(reference[name].astype(float) - got[name].astype(float)), nan=np.inf
            )
            for name in reference
            if name in got and got[name].shape == reference[name].shape
        ]
        return int(sum(each.reshape(len(each), -1).max(1) for each in errors).argmax())


def _bench(
    recipe: Recipe, format_: ModelFormat, converter: str, children: Children, folder: Path
) -> Bench:
    for name in ("source", "good", "probes", "reference"):
        (folder / name).mkdir()
    call = Call("test", "model", FAMILIES[format_])
    if format_ is ModelFormat.KERAS:
        children.call(keras_nets.build_net, NetRequest(net="cnn", folder=folder / "source"), call)
    else:
        request = AcquireRequest(recipe=recipe, downloads=(), folder=folder / "source")
        children.call(SOURCES[recipe.source.kind].acquire, request, call)
    conversion = ConvertRequest(recipe=recipe, source=folder / "source", folder=folder / "good")
    children.call(convert_function(converter), conversion, call)
    make_probes(ProbesRequest(recipe=recipe, pictures=(), held_out=None, folder=folder / "probes"))
    children.call(
        answer,
        AnswerRequest(
            recipe=recipe, format=format_, model=folder / "source", probes=folder / "probes",
            names=("random",), device="cpu", folder=folder / "reference",
        ),
        call,
    )  # fmt: skip
    return Bench(recipe, format_, folder, children)


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    with Children(tmp_path_factory.mktemp("children")) as opened:
        yield opened


@pytest.fixture(scope="module")
def dynamo(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("dynamo")
    return _bench(TORCH, ModelFormat.TORCH, "torch-dynamo", children, folder)


@pytest.fixture(scope="module")
def script(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("script")
    return _bench(TORCH, ModelFormat.TORCH, "torch-torchscript", children, folder)


@pytest.fixture(scope="module")
def keras(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("keras")
    return _bench(KERAS, ModelFormat.KERAS, "tf2onnx-keras", children, folder)


@pytest.fixture(scope="module")
def sklearn(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("sklearn")
    return _bench(SKLEARN, ModelFormat.SKLEARN, "skl2onnx", children, folder)


# --- faults --------------------------------------------------------------------------------


def _weights(net: onnx.ModelProto, node: onnx.NodeProto, place: int) -> onnx.TensorProto:
    return next(each for each in net.graph.initializer if each.name == node.input[place])


def _scale_weights(net: onnx.ModelProto, node: onnx.NodeProto) -> None:
    stored = _weights(net, node, 1)
    array = numpy_helper.to_array(stored)
    stored.CopyFrom(numpy_helper.from_array((array * 1.01).astype(array.dtype), stored.name))


def _drop_bias(net: onnx.ModelProto, node: onnx.NodeProto) -> None:
    stored = _weights(net, node, 2)
    zeros = np.zeros_like(numpy_helper.to_array(stored))
    stored.CopyFrom(numpy_helper.from_array(zeros, stored.name))


def _transpose_kernel(net: onnx.ModelProto, node: onnx.NodeProto) -> None:
    stored = _weights(net, node, 1)
    array = np.ascontiguousarray(numpy_helper.to_array(stored).swapaxes(2, 3))
    stored.CopyFrom(numpy_helper.from_array(array, stored.name))


def _change_attribute(name: str, value: Any) -> Callable[[onnx.ModelProto, onnx.NodeProto], None]:
    def change(_net: onnx.ModelProto, node: onnx.NodeProto) -> None:
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def _become(kind: str) -> Callable[[onnx.ModelProto, onnx.NodeProto], None]:
    def change(_net: onnx.ModelProto, node: onnx.NodeProto) -> None:
        node.op_type = kind
        del node.attribute[:]

    return change


def _scale_attribute(name: str) -> Callable[[onnx.ModelProto, onnx.NodeProto], None]:
    def change(net: onnx.ModelProto, node: onnx.NodeProto) -> None:
        values = next(each for each in node.attribute if each.name == name).floats
        _change_attribute(name, [1.01 * each for each in values])(net, node)

    return change


def _plant(
    bench: Bench,
    fault: Callable[[onnx.ModelProto, onnx.NodeProto], None],
    kind: str,
    place: int,
    folder: Path,
) -> str:
    """Write a wrong copy of the good model; return the wrong node's name."""
    net = onnx.load(bench.folder / "good" / "model.onnx")
    node = [each for each in net.graph.node if each.op_type == kind][place]
    fault(net, node)
    folder.mkdir()
    onnx.save(net, folder / "model.onnx")
    return str(node.name or node.output[0])


Planted = tuple[str, Any, str, int, str | None]
"""The bench, the fault, which node by operator and place, and its layer."""

FAULTS = [
    pytest.param(("dynamo", _scale_weights, "Conv", 1, "conv2"), id="dynamo-weights"),
    pytest.param(("dynamo", _transpose_kernel, "Conv", 0, "conv1"), id="dynamo-kernel"),
    pytest.param(("dynamo", _drop_bias, "Gemm", 0, "head"), id="dynamo-bias"),
    pytest.param(("dynamo", _become("Abs"), "Relu", 1, "relu2"), id="dynamo-activation"),
    pytest.param(
        ("dynamo", _change_attribute("pads", [2, 2, 0, 0]), "Conv", 1, "conv2"), id="dynamo-pads"
    ),
    pytest.param(("script", _scale_weights, "Conv", 1, "conv2"), id="script-weights"),
    pytest.param(("script", _drop_bias, "Gemm", 0, "head"), id="script-bias"),
    pytest.param(("script", _become("Abs"), "Relu", 0, "relu1"), id="script-activation"),
    pytest.param(("keras", _scale_weights, "Conv", 0, None), id="keras-weights"),
    pytest.param(("keras", _drop_bias, "Conv", 0, None), id="keras-bias"),
    pytest.param(("keras", _become("Abs"), "Relu", 0, None), id="keras-activation"),
    pytest.param(("sklearn", _scale_weights, "Div", 0, "standardscaler"), id="sklearn-scaler"),
    pytest.param(
        ("sklearn", _scale_attribute("coefficients"), "LinearClassifier", 0, "logisticregression"),
        id="sklearn-head",
    ),
]


@pytest.mark.parametrize("planted", FAULTS)
def test_the_wrong_node_of_a_raw_export_is_named_with_its_layer_and_reproduced(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    planted: Planted,
) -> None:
    source, fault, kind, place, layer = planted
    bench: Bench = request.getfixturevalue(source)
    node = _plant(bench, fault, kind, place, tmp_path / "bad")

    found = bench.locate(tmp_path / "bad", tmp_path)

    assert found.culprit is not None, found.words
    assert found.culprit.node == node, found.words
    # a BatchNorm that was folded into its convolution may give its name to both
    same = {layer, str(layer).replace("conv", "norm")}
    assert layer is None or found.culprit.layer in same
    assert found.folder is not None, found.words
    assert found.nodes <= 2
    assert _run(found.folder, tmp_path).returncode == 1


def _run(folder: Path, elsewhere: Path) -> subprocess.CompletedProcess[str]:
    """Run a reproducer with nothing of ours in reach."""
    command = [sys.executable, "-I", str(folder / "reproduce.py")]
    return subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)


def test_a_wrong_step_between_two_onnx_models_is_named(dynamo: Bench, tmp_path: Path) -> None:
    node = _plant(dynamo, _scale_weights, "Conv", 1, tmp_path / "bad")

    found = dynamo.locate(tmp_path / "bad", tmp_path, good=dynamo.folder / "good")

    assert found.culprit is not None, found.words
    assert found.culprit.node == node
    assert found.nodes == 1


def test_a_reproducer_says_right_once_its_model_is_mended(dynamo: Bench, tmp_path: Path) -> None:
    _plant(dynamo, _drop_bias, "Gemm", 0, tmp_path / "bad")
    found = dynamo.locate(tmp_path / "bad", tmp_path)
    assert found.folder is not None, found.words
    wrong = _run(found.folder, tmp_path)
    cut = onnx.load(found.folder / "model.onnx")
    good = onnx.load(dynamo.folder / "good" / "model.onnx")
    kept = {each.name for each in cut.graph.initializer}
    del cut.graph.initializer[:]
    cut.graph.initializer.extend(each for each in good.graph.initializer if each.name in kept)
    onnx.save(cut, found.folder / "model.onnx")

    mended = _run(found.folder, tmp_path)

    assert (wrong.returncode, mended.returncode) == (1, 0), wrong.stderr + mended.stderr
    assert "expected" in wrong.stdout
    assert "WRONG" in wrong.stdout
    assert sorted(each.name for each in found.folder.iterdir()) == [
        "README.txt", "expected.npz", "got.npz", "inputs.npz", "model.onnx", "reproduce.py",
        "versions.json",
    ]  # fmt: skip


def test_a_model_that_stops_at_a_node_is_told_by_that_node(dynamo: Bench, tmp_path: Path) -> None:
    net = onnx.load(dynamo.folder / "good" / "model.onnx")
    node = next(each for each in net.graph.node if each.op_type == "Reshape")
    net.graph.initializer.append(numpy_helper.from_array(np.array([1, 512]), "fixed"))
    node.input[1] = "fixed"
    (tmp_path / "bad").mkdir()
    onnx.save(net, tmp_path / "bad" / "model.onnx")
    bisection = Bisection(
        good=None,
        bad=Way(stage="raw export", format=ModelFormat.ONNX, model=tmp_path / "bad"),
        probe="random",
        row=1,
        verdicts=(),
    )

    found = locate(
        TORCH, bisection, dynamo.folder / "source", ModelFormat.TORCH, dynamo.folder / "probes",
        dynamo.folder / "reference", dynamo.children, tmp_path,
    )  # fmt: skip

    assert found.culprit is not None, found.words
    assert found.culprit.node == node.name
    assert "does not run" in found.words


def test_a_graph_that_onnx_runtime_rewrote_is_searched_as_it_was_rewritten(
    dynamo: Bench, tmp_path: Path
) -> None:
    """No release of it is known to be wrong here, so a tensor of the right side is moved."""
    good = dynamo.folder / "good"
    _plant(dynamo, _scale_weights, "Conv", 1, tmp_path / "bad")
    right = Way(stage="raw export", format=ModelFormat.ONNX, model=good)
    bad = Way(
        stage="runtime optimisation",
        step="basic",
        format=ModelFormat.ONNX,
        model=tmp_path / "bad",
        optimisation="basic",
    )
    bisection = Bisection(good=right, bad=bad, probe="random", row=1, verdicts=())

    found = locate(
        TORCH, bisection, dynamo.folder / "source", ModelFormat.TORCH, dynamo.folder / "probes",
        dynamo.folder / "reference", dynamo.children, tmp_path,
    )  # fmt: skip

    assert found.culprit is not None, found.words
    assert "Conv" in found.culprit.op_type
    assert found.folder is not None


def test_a_source_that_cannot_be_read_is_said_in_words(dynamo: Bench, tmp_path: Path) -> None:
    _plant(dynamo, _drop_bias, "Gemm", 0, tmp_path / "bad")
    (tmp_path / "empty").mkdir()
    bench = Bench(dynamo.recipe, dynamo.format, tmp_path / "empty", dynamo.children)
    for name in ("probes", "reference"):
        (tmp_path / "empty" / name).symlink_to(dynamo.folder / name)
    (tmp_path / "empty" / "source").mkdir()

    found = bench.locate(tmp_path / "bad", tmp_path)

    assert found.culprit is None
    assert found.folder is None
    assert "no node could be looked for" in found.words
