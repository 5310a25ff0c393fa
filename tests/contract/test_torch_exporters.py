"""Both torch exporters write the recipe's own signature, and the answers of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tasks.arrays import load_arrays, save_arrays
from tasks.converters import ConvertRequest, convert_function
from tasks.converters.torch_dynamo import refuse_onnxscript
from tasks.domain.errors import ExportError, SignatureMismatchError, VerificationError
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.sources import SOURCES, AcquireReply, AcquireRequest
from tests.support import torch_functions
from tests.support.torch_functions import Limited, Program, Run

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

EXPORTERS = [
    pytest.param("torch-dynamo", 18, id="dynamo-at-18"),
    pytest.param("torch-dynamo", 21, id="dynamo-at-21"),
    pytest.param("torch-torchscript", 17, id="torchscript-at-17"),
    pytest.param("torch-torchscript", 11, id="torchscript-at-11"),
]
BOTH = [pytest.param("torch-dynamo", id="dynamo"), pytest.param("torch-torchscript", id="script")]


def _recipe(**changes: Any) -> Recipe:
    image = {"name": "ink", "dtype": "float32", "shape": ["batch", 1, 8, 8]}
    training = {"kind": "train-torch", "dataset": "digits", "network": "cnn", "epochs": 1}
    return Recipe.model_validate(
        {
            "name": "digits",
            "description": "Which digit?",
            "licence": "none",
            "source": training | {"minimum_accuracy": 0.5},
            "signature": {
                "inputs": [image | {"domain": {"kind": "range", "low": 0, "high": 16}}],
                "outputs": [{"name": "scores", "dtype": "float32", "shape": ["batch", 10]}],
            },
            "opset": 18,
        }
        | changes
    )


def _outputs(*specs: tuple[str, str, list[Any]], inputs: Any = None) -> dict[str, Any]:
    return {
        "inputs": inputs or _recipe().model_dump(mode="json")["signature"]["inputs"],
        "outputs": [{"name": name, "dtype": dtype, "shape": shape} for name, dtype, shape in specs],
    }


PROGRAM = {"kind": "torch-program", "download": {"uri": "file:///p", "sha256": "0" * 64}}


@pytest.fixture(scope="module")
def trained(children: Children, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Two networks of one architecture, by the seed that they were trained with."""
    folders = {}
    for seed in (0, 1):
        recipe = _recipe()
        source = recipe.source.model_copy(update={"seed": seed})
        folder = tmp_path_factory.mktemp(f"trained-{seed}")
        request = AcquireRequest(
            recipe=recipe.model_copy(update={"source": source}), downloads=(), folder=folder
        )
        _acquire(children, request)
        folders[seed] = folder
    return folders


def _acquire(children: Children, request: AcquireRequest) -> AcquireReply:
    kind = SOURCES[request.recipe.source.kind]
    call = Call("acquire", request.recipe.name, kind.family)
    return children.call(kind.acquire, request, call).value


def _convert(
    children: Children, converter: str, recipe: Recipe, source: Path, folder: Path
) -> Path:
    request = ConvertRequest(recipe=recipe, source=source, folder=folder)
    call = Call(f"export ({converter})", recipe.name, Family.TORCH)
    children.call(convert_function(converter), request, call)
    return folder / "model.onnx"


def _reference(
    children: Children, recipe: Recipe, source: Path, ink: NDArray[np.generic], folder: Path
) -> dict[str, NDArray[Any]]:
    inputs, answers = folder / "inputs.npz", folder / "answers.npz"
    save_arrays(inputs, {"ink": ink})
    request = Run(recipe=recipe, folder=source, inputs=inputs, answers=answers)
    children.call(torch_functions.run, request, Call("run", recipe.name, Family.TORCH))
    return load_arrays(answers)


def _ink(rows: int) -> NDArray[np.float32]:
    return np.random.default_rng(5).uniform(0, 16, (rows, 1, 8, 8)).astype(np.float32)


def _declared(path: Path) -> list[tuple[str, list[Any]]]:
    session = onnxruntime.InferenceSession(path)
    return [(each.name, each.shape) for each in (*session.get_inputs(), *session.get_outputs())]


@pytest.mark.parametrize(("converter", "opset"), EXPORTERS)
def test_the_file_has_the_recipes_signature_and_opset(
    children: Children, trained: dict[int, Path], tmp_path: Path, converter: str, opset: int
) -> None:
    recipe = _recipe(opset=opset)

    path = _convert(children, converter, recipe, trained[0], tmp_path)

    onnx.checker.check_model(path, full_check=True)
    assert _declared(path) == [("ink", ["batch", 1, 8, 8]), ("scores", ["batch", 10])]
    assert onnx.load(path).opset_import[0].version == opset
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("converter", BOTH)
def test_every_batch_size_gets_torchs_answer_and_other_weights_do_not(
    children: Children, trained: dict[int, Path], tmp_path: Path, converter: str
) -> None:
    folder = tmp_path / "onnx"
    folder.mkdir()
    ink = _ink(8)

    session = onnxruntime.InferenceSession(
        _convert(children, converter, _recipe(), trained[0], folder)
    )

    expected = _reference(children, _recipe(), trained[0], ink, tmp_path)["scores"]
    other = _reference(children, _recipe(), trained[1], ink, tmp_path)["scores"]
    for rows in (1, 2, 3, 8):
        got = session.run(None, {"ink": ink[:rows]})[0]
        np.testing.assert_allclose(got, expected[:rows], rtol=1e-4, atol=1e-5)
        assert np.abs(got - other[:rows]).max() > 0.1


@pytest.mark.parametrize("converter", BOTH)
def test_weights_above_the_limit_stand_beside_the_model(
    children: Children, trained: dict[int, Path], tmp_path: Path, converter: str
) -> None:
    folder = tmp_path / "onnx"
    folder.mkdir()
    convert = ConvertRequest(recipe=_recipe(), source=trained[0], folder=folder)
    request = Limited(converter=converter, convert=convert, one_file_bytes=10_000)

    children.call(torch_functions.convert_within, request, Call("export", "digits", Family.TORCH))

    assert sorted(each.name for each in folder.iterdir()) == ["model.onnx", "model.onnx.data"]
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    ink = _ink(3)
    got = onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"ink": ink})[0]
    expected = _reference(children, _recipe(), trained[0], ink, tmp_path)["scores"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_dynamo_does_not_pretend_to_write_an_older_opset(
    children: Children, trained: dict[int, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        ExportError, match=r"opset 18 or later .the recipe asks for 17.*torchscript"
    ):
        _convert(children, "torch-dynamo", _recipe(opset=17), trained[0], tmp_path)

    assert not list(tmp_path.iterdir())


def test_torchscript_says_which_opset_it_cannot_write(
    children: Children, trained: dict[int, Path], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"at opset 26 \("):
        _convert(children, "torch-torchscript", _recipe(opset=26), trained[0], tmp_path)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", ["0.5.4", "0.5.5", "0.5.6"])
def test_an_onnxscript_that_miscalculates_is_refused(version: str) -> None:
    with pytest.raises(ExportError, match=rf"onnxscript {version} .*expected 0\.5\.7"):
        refuse_onnxscript(version)


def test_later_versions_of_onnxscript_are_not_refused() -> None:
    assert refuse_onnxscript("0.5.7") is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("converter", BOTH)
def test_an_input_shape_that_contradicts_the_model_is_named(
    children: Children, trained: dict[int, Path], tmp_path: Path, converter: str
) -> None:
    image = _recipe().model_dump(mode="json")["signature"]["inputs"][0]
    signature = _outputs(
        ("scores", "float32", ["batch", 10]), inputs=[image | {"shape": ["batch", 1, 9, 30]}]
    )

    with pytest.raises(SignatureMismatchError, match=r"1, 9, 30.; got .*float32.2, 1, 9, 30"):
        _convert(children, converter, _recipe(signature=signature), trained[0], tmp_path)


@pytest.mark.parametrize("converter", BOTH)
def test_an_output_shape_that_contradicts_the_model_is_named(
    children: Children, trained: dict[int, Path], tmp_path: Path, converter: str
) -> None:
    signature = _outputs(("scores", "float32", ["batch", 11]))

    with pytest.raises(SignatureMismatchError, match=r"batch, 11.; got float32.2, 10. for 2 rows"):
        _convert(children, converter, _recipe(signature=signature), trained[0], tmp_path)


@pytest.mark.parametrize(
    ("converter", "form"),
    [
        pytest.param("torch-dynamo", "export", id="dynamo-takes-torch-export"),
        pytest.param("torch-torchscript", "script", id="torchscript-takes-script"),
        pytest.param("torch-torchscript", "trace", id="torchscript-takes-trace"),
    ],
)
def test_programs_are_exported_as_they_answer(
    children: Children, tmp_path: Path, converter: str, form: Any
) -> None:
    source, folder = tmp_path / "source", tmp_path / "onnx"
    source.mkdir()
    folder.mkdir()
    path = source / ("program.pt2" if form == "export" else "program.pt")
    call = Call("make", "program", Family.TORCH)
    children.call(torch_functions.save_program, Program(path=path, form=form), call)
    signature = _outputs(("scores", "float32", ["batch", 3]))
    recipe = _recipe(source=PROGRAM, signature=signature)

    session = onnxruntime.InferenceSession(_convert(children, converter, recipe, source, folder))

    ink = _ink(5)
    expected = _reference(children, recipe, source, ink, tmp_path)["scores"]
    assert session.get_outputs()[0].shape == ["batch", 3]
    np.testing.assert_allclose(session.run(None, {"ink": ink})[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("converter", "form", "other"),
    [
        pytest.param("torch-torchscript", "export", "torch-dynamo", id="torchscript"),
        pytest.param("torch-dynamo", "trace", "torch-torchscript", id="dynamo"),
    ],
)
def test_an_exporter_that_cannot_take_a_program_names_the_one_that_can(
    children: Children, tmp_path: Path, converter: str, form: Any, other: str
) -> None:
    path = tmp_path / ("program.pt2" if form == "export" else "program.pt")
    call = Call("make", "program", Family.TORCH)
    children.call(torch_functions.save_program, Program(path=path, form=form), call)
    recipe = _recipe(source=PROGRAM, signature=_outputs(("scores", "float32", ["batch", 3])))
    folder = tmp_path / "onnx"
    folder.mkdir()

    with pytest.raises(ExportError, match=rf"{converter} does not take .* Use {other}"):
        _convert(children, converter, recipe, tmp_path, folder)

    assert not list(folder.iterdir())


def test_nested_answers_are_named_in_their_own_order(children: Children, tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "onnx"
    source.mkdir()
    folder.mkdir()
    program = Program(path=source / "program.pt2", form="export", nested=True)
    children.call(torch_functions.save_program, program, Call("make", "program", Family.TORCH))
    signature = _outputs(
        ("scores", "float32", ["batch", 3]),
        ("positive", "float32", ["batch", 3]),
        ("label", "int64", ["batch"]),
    )
    recipe = _recipe(source=PROGRAM, signature=signature)

    path = _convert(children, "torch-dynamo", recipe, source, folder)

    ink = _ink(4)
    expected = _reference(children, recipe, source, ink, tmp_path)
    np.testing.assert_array_equal(expected["positive"], np.maximum(expected["scores"], 0))
    np.testing.assert_array_equal(expected["label"], expected["scores"].argmax(1))
    for name, got in zip(
        expected, onnxruntime.InferenceSession(path).run(None, {"ink": ink}), strict=True
    ):
        np.testing.assert_allclose(got, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("converter", BOTH)
def test_a_program_in_training_mode_is_not_exported(
    children: Children, tmp_path: Path, converter: str
) -> None:
    source, folder = tmp_path / "source", tmp_path / "onnx"
    source.mkdir()
    folder.mkdir()
    program = Program(path=source / "program.pt2", form="export", training=True)
    children.call(torch_functions.save_program, program, Call("make", "program", Family.TORCH))
    recipe = _recipe(source=PROGRAM, signature=_outputs(("scores", "float32", ["batch", 3])))

    with pytest.raises(VerificationError, match=r"training mode .*batch_norm, dropout"):
        _convert(children, converter, recipe, source, folder)
