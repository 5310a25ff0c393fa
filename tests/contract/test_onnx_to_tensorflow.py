"""Each converter from ONNX to TensorFlow writes the recipe's model, small and ready to load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tasks.arrays import load_arrays, save_arrays
from tasks.converters import ConvertRequest, convert_function, onnx2tf_fallback
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import (
    ConfigurationError,
    ExportError,
    SignatureMismatchError,
    VerificationError,
)
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.verify_saved_model import VerifySavedModelRequest, verify_saved_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.runners import Device

_CALL = Call("test", "net", Family.TENSORFLOW_LEGACY)
_LEFT_OUT = pytest.mark.skipif(
    not onnx2tf_fallback.FOLDER.is_dir(), reason="onnx2tf is not installed"
)
CONVERTERS = ["onnx-tf", "onnx-tf-cli", pytest.param("onnx2tf", marks=_LEFT_OUT)]
IMAGE = {"name": "image", "dtype": "float32", "shape": ["batch", 3, 17, 23]}
SCORES = {"name": "scores", "dtype": "float32", "shape": ["batch", 5]}


def _recipe(inputs: Any = IMAGE, outputs: Any = SCORES) -> Recipe:
    domain = {"domain": {"kind": "range", "low": -2, "high": 2}}
    return Recipe.model_validate(
        {
            "name": "net",
            "description": "A small net.",
            "licence": "none",
            "source": {
                "kind": "train-sklearn",
                "dataset": "iris",
                "steps": [{"estimator": "sklearn.linear_model.LinearRegression"}],
            },
            "signature": {
                "inputs": [inputs | domain],
                "outputs": outputs if isinstance(outputs, list) else [outputs],
            },
        }
    )


def _net(seed: int = 0, batch: int | str = "batch", activation: str = "Relu") -> onnx.ModelProto:
    """Build convolution, normalisation, activation, pooling and a matrix; 70 kB of weights."""
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (64, 3, 3, 5), "k_bias": (64,), "matrix": (64 * 4 * 3, 5), "bias": (5,)}
    weights = {name: rng.normal(size=shape) * 0.2 for name, shape in shapes.items()}
    weights |= {f"n{i}": rng.uniform(0.5, 1.5, 64) for i in range(4)}
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "k_bias"], ["a"], "conv", strides=[2, 2]),
        helper.make_node("BatchNormalization", ["a", "n0", "n1", "n2", "n3"], ["b"], "norm"),
        helper.make_node(activation, ["b"], ["c"], "active"),
        helper.make_node("MaxPool", ["c"], ["d"], "pool", kernel_shape=[2, 3], strides=[2, 3]),
        helper.make_node("Flatten", ["d"], ["e"], "flat"),
        helper.make_node("Gemm", ["e", "matrix", "bias"], ["scores"], "gemm"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 17, 23])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _convert(
    children: Children, tmp_path: Path, model: onnx.ModelProto, recipe: Recipe, name: str
) -> Path:
    source, folder = tmp_path / "onnx", tmp_path / "tf"
    source.mkdir()
    folder.mkdir()
    onnx.save(model, source / "model.onnx")
    request = ConvertRequest(recipe=recipe, source=source, folder=folder)
    call = Call(f"export ({name})", "net", Family.TENSORFLOW_LEGACY, fails_as=ExportError)
    children.call(convert_function(name), request, call)
    return folder


def _answers(
    children: Children, tmp_path: Path, folder: Path, recipe: Recipe, probe: dict[str, Any]
) -> dict[str, NDArray[Any]]:
    probes, answers = tmp_path / "probes", tmp_path / "answers"
    probes.mkdir()
    answers.mkdir()
    save_arrays(probes / "rows.npz", probe)
    request = AnswerRequest(
        recipe=recipe,
        format=ModelFormat.SAVED_MODEL,
        model=folder,
        probes=probes,
        names=("rows",),
        device="cpu",
        folder=answers,
    )
    children.call(answer, request, _CALL)
    return load_arrays(answers / "rows.npz")


def _reference(model: onnx.ModelProto, probe: dict[str, Any]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, probe), strict=True))


def _verify(children: Children, folder: Path, recipe: Recipe) -> tuple[str, ...]:
    request = VerifySavedModelRequest(recipe=recipe, model=folder)
    return children.call(verify_saved_model, request, _CALL).value.checks


def _pictures(rows: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    return {"image": rng.uniform(-2, 2, (rows, 3, 17, 23)).astype(np.float32)}


def _strays(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_converter_writes_what_onnx_runtime_answers(
    name: str, children: Children, tmp_path: Path
) -> None:
    recipe, probe = _recipe(), _pictures()

    folder = _convert(children, tmp_path, _net(), recipe, name)

    checks = _verify(children, folder, recipe)
    got = _answers(children, tmp_path, folder, recipe, probe)["scores"]
    assert any("batch 1, 2, 3 and 8" in check for check in checks)
    assert _strays(got, _reference(_net(), probe)["scores"]) < 1e-5
    assert _strays(got, _reference(_net(seed=1), probe)["scores"]) > 0.1


def test_weights_are_saved_once_as_variables(children: Children, tmp_path: Path) -> None:
    model = _net()
    weights = sum(numpy_helper.to_array(each).nbytes for each in model.graph.initializer)

    folder = _convert(children, tmp_path, model, _recipe(), "onnx-tf")

    sizes = {each.name: each.stat().st_size for each in folder.rglob("*") if each.is_file()}
    assert sizes["variables.data-00000-of-00001"] > 0.9 * weights
    assert sum(sizes.values()) < 1.1 * weights + 40_000


def test_a_saved_model_loads_in_plain_tensorflow(children: Children, tmp_path: Path) -> None:
    folder, probe = _convert(children, tmp_path, _net(), _recipe(), "onnx-tf"), _pictures(3)
    save_arrays(tmp_path / "in.npz", probe)
    program = (
        "import sys, numpy as np, tensorflow as tf\n"
        f"model = tf.saved_model.load({str(folder)!r})\n"
        f"image = tf.constant(np.load({str(tmp_path / 'in.npz')!r})['image'])\n"
        "scores = model.signatures['serving_default'](image=image)['scores'].numpy()\n"
        "assert not {'onnx_tf', 'tf_keras', 'tensorflow_addons'} & set(sys.modules)\n"
        f"np.save({str(tmp_path / 'out.npy')!r}, scores)\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=tmp_path)

    wanted = _reference(_net(), probe)["scores"]
    assert _strays(np.load(tmp_path / "out.npy"), wanted) < 1e-5


def _classifier(kind: str, labels: str) -> tuple[Any, Any, int]:
    x, y = load_iris(return_X_y=True) if kind == "forest" else load_breast_cancer(return_X_y=True)
    y = np.array(["setosa", "grün", "c"])[y] if labels == "text" else y
    model = {
        "forest": RandomForestClassifier(20, random_state=0),
        "two-class-forest": RandomForestClassifier(16, random_state=0),
        "boosting": GradientBoostingClassifier(n_estimators=10, random_state=0),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    }[kind]
    x = x.astype(np.float32)
    return model.fit(x, y), x, len(set(y))


@pytest.mark.parametrize("labels", ["numbers", "text"])
@pytest.mark.parametrize("kind", ["forest", "two-class-forest", "boosting", "logistic"])
def test_a_fitted_classifier_keeps_labels_and_probabilities(
    kind: str,
    labels: str,
    children: Children,
    tmp_path: Path,
) -> None:
    from skl2onnx import to_onnx

    fitted, x, classes = _classifier(kind, labels)
    model = to_onnx(fitted, x[:1], options={"zipmap": False}, target_opset=17)
    dtype = "string" if labels == "text" else "int64"
    recipe = _recipe(
        {"name": "X", "dtype": "float32", "shape": ["batch", x.shape[1]]},
        [
            {"name": model.graph.output[0].name, "dtype": dtype, "shape": ["batch"]},
            {"name": "probabilities", "dtype": "float32", "shape": ["batch", classes]},
        ],
    )

    folder = _convert(children, tmp_path, model, recipe, "onnx-tf")

    _verify(children, folder, recipe)
    got = _answers(children, tmp_path, folder, recipe, {"X": x})
    assert np.array_equal(got[recipe.signature.outputs[0].name], fitted.predict(x))
    assert np.abs(got["probabilities"] - fitted.predict_proba(x)).max() < 1e-5
    assert np.abs(got["probabilities"] - fitted.predict_proba(x[::-1])).max() > 0.1


@pytest.mark.parametrize("name", ["onnx-tf", "onnx-tf-cli"])
def test_an_operator_without_a_handler_is_named_before_any_work(
    name: str, children: Children, tmp_path: Path
) -> None:
    model = _net()
    model.graph.node[2].CopyFrom(
        helper.make_node("StringSplit", ["b"], ["c", "n"], "the odd one", delimiter="x")
    )
    model.opset_import[0].version = 20

    with pytest.raises(ExportError, match=r"ai\.onnx StringSplit-20 \(node 'the odd one'\)"):
        _convert(children, tmp_path, model, _recipe(), name)


def test_a_zipmap_is_refused_with_the_way_out(children: Children, tmp_path: Path) -> None:
    from skl2onnx import to_onnx

    fitted, x, _ = _classifier("forest", "numbers")
    model = to_onnx(fitted, x[:1], target_opset=17)

    with pytest.raises(ExportError, match=r"ZipMap-1 .* without ZipMap"):
        _convert(children, tmp_path, model, _recipe(), "onnx-tf")


def test_an_attribute_that_the_elder_handler_overlooks_is_refused(
    children: Children, tmp_path: Path
) -> None:
    model = _net(activation="Identity")
    node = helper.make_node(
        "Resize", ["b", "", "twice"], ["c"], "sizer", antialias=1, mode="linear"
    )
    twice = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")
    model.graph.node[2].CopyFrom(node)
    model.graph.initializer.append(twice)
    model.opset_import[0].version = 19

    with pytest.raises(ExportError, match=r"Resize-19 with antialias = 1 \(node 'sizer'\)"):
        _convert(children, tmp_path, model, _recipe(), "onnx-tf")


def test_a_model_in_training_mode_is_refused(children: Children, tmp_path: Path) -> None:
    model = _net()
    model.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))

    with pytest.raises(ExportError, match="training mode"):
        _convert(children, tmp_path, model, _recipe(), "onnx-tf")


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        pytest.param(IMAGE, SCORES | {"name": "logits"}, "output.* names", id="name"),
        pytest.param(IMAGE, SCORES | {"dtype": "float64"}, "float64", id="dtype"),
        pytest.param(IMAGE, SCORES | {"shape": ["batch", 6]}, r"expected .*6\].*got", id="size"),
        pytest.param(
            IMAGE | {"shape": ["batch", 3, "height", 23]}, SCORES, "height", id="fixed-size"
        ),
        pytest.param(IMAGE | {"name": "x"}, SCORES, "input.* names", id="input"),
    ],
)
def test_a_signature_that_is_not_the_recipes_fails_verification(
    inputs: Any, outputs: Any, words: str, children: Children, tmp_path: Path
) -> None:
    folder = _convert(children, tmp_path, _net(), _recipe(), "onnx-tf")

    with pytest.raises(SignatureMismatchError, match=words):
        _verify(children, folder, _recipe(inputs, outputs))


def test_a_fixed_batch_fails_verification(children: Children, tmp_path: Path) -> None:
    folder = _convert(children, tmp_path, _net(batch=2), _recipe(), "onnx-tf-cli")

    with pytest.raises(SignatureMismatchError, match=r"expected .*batch, 3.*got .*\[2, 3"):
        _verify(children, folder, _recipe())


@pytest.mark.parametrize("damage", ["graph", "weights"])
def test_a_broken_saved_model_fails_verification(
    damage: str, children: Children, tmp_path: Path
) -> None:
    folder = _convert(children, tmp_path, _net(), _recipe(), "onnx-tf")
    file = next(folder.rglob("saved_model.pb" if damage == "graph" else "variables.data*"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    with pytest.raises(VerificationError, match="net: TensorFlow cannot load tf"):
        _verify(children, folder, _recipe())


def test_a_gpu_that_is_not_there_is_an_error(children: Children, tmp_path: Path) -> None:
    device: Device = "cuda"
    request = AnswerRequest(
        recipe=_recipe(),
        format=ModelFormat.SAVED_MODEL,
        model=_convert(children, tmp_path, _net(), _recipe(), "onnx-tf"),
        probes=tmp_path,
        names=(),
        device=device,
        folder=tmp_path,
    )

    with pytest.raises(ConfigurationError, match="TensorFlow sees no GPU"):
        children.call(answer, request, _CALL)


def test_onnx2tf_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx2tf_fallback, "FOLDER", tmp_path)
    request = ConvertRequest(recipe=_recipe(), source=tmp_path, folder=tmp_path)

    with pytest.raises(ExportError, match="pip install --no-deps --require-hashes"):
        onnx2tf_fallback.convert(request)


def test_the_install_hint_names_a_file_that_is_there() -> None:
    file = onnx2tf_fallback.INSTALL.split(" -r ")[1]

    assert "onnx2tf==" in (Path(__file__).parents[2] / file).read_text()
