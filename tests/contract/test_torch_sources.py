"""Torch models come from training, torchvision or programs, and no file of theirs runs code."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tasks.arrays import load_arrays, save_arrays
from tasks.catalogue import load_recipe
from tasks.domain.errors import (
    AcquisitionError,
    ConfigurationError,
    SignatureMismatchError,
)
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.sources import HELD_OUT, SOURCES, AcquireReply, AcquireRequest
from tests.support import torch_functions
from tests.support.torch_functions import Program, Run, Weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CATALOGUE = Path(__file__).parents[2] / "models"
DIGITS = {"kind": "train-torch", "dataset": "digits", "network": "cnn", "epochs": 2}
PROGRAM = {"kind": "torch-program", "download": {"uri": "file:///p", "sha256": "0" * 64}}
PUBLISHED = {
    "kind": "torchvision",
    "model": "shufflenet_v2_x0_5",
    "weights": "IMAGENET1K_V1",
    "download": {"uri": "file:///w", "sha256": "f707e7126e" + "0" * 54},
}
SEEDED = {"kind": "torchvision", "model": "shufflenet_v2_x0_5", "seed": 3}


def _recipe(source: dict[str, Any], **changes: Any) -> Recipe:
    small = source["kind"] != "torchvision"
    image = [1, 8, 8] if small else [3, 64, 64]
    classes = {"train-torch": 10, "torch-program": 3, "torchvision": 1000}[source["kind"]]
    ink = {"name": "ink", "dtype": "float32", "shape": ["batch", *image], "layout": "NCHW"}
    return Recipe.model_validate(
        {
            "name": "tried",
            "description": "A model to try.",
            "licence": "none",
            "source": source,
            "signature": {
                "inputs": [ink | {"domain": {"kind": "range", "low": 0, "high": 16}}],
                "outputs": [{"name": "scores", "dtype": "float32", "shape": ["batch", classes]}],
            },
        }
        | changes
    )


def _acquire(
    children: Children,
    recipe: Recipe,
    folder: Path,
    *downloads: Path,
    on_progress: Callable[[float, str], None] | None = None,
) -> AcquireReply:
    folder.mkdir(exist_ok=True)
    kind = SOURCES[recipe.source.kind]
    call = Call("acquire", recipe.name, kind.family, on_progress=on_progress)
    request = AcquireRequest(recipe=recipe, downloads=downloads, folder=folder)
    return children.call(kind.acquire, request, call).value


def _answers(
    children: Children, recipe: Recipe, folder: Path, rows: int = 3, **more: Any
) -> NDArray[Any]:
    shape = [rows, *map(int, recipe.signature.inputs[0].shape[1:])]
    ink = np.random.default_rng(1).uniform(0, 16, shape).astype(np.float32)
    inputs, answers = folder / "in.npz", folder / "out.npz"
    save_arrays(inputs, {"ink": ink})
    request = Run(recipe=recipe, folder=folder, inputs=inputs, answers=answers, **more)
    children.call(torch_functions.run, request, Call("run", recipe.name, Family.TORCH))
    return load_arrays(answers)["scores"]


def _program(children: Children, path: Path, **what: Any) -> Path:
    call = Call("make", "program", Family.TORCH)
    children.call(torch_functions.save_program, Program(path=path, **what), call)
    return path


class _MakesFolder:
    """Once unpickled, it has made a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def _zipped(path: Path, records: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
    return path


def _changed(path: Path, record: str, change: Callable[[bytes], bytes]) -> Path:
    """Rewrite one record of a program's archive."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    changed = {
        name: change(content) if name.endswith(record) else content
        for name, content in records.items()
    }
    assert changed != records
    target = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in changed.items():
            archive.writestr(name, content)
    return target


# --- training -----------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["cnn", "mlp"])
def test_training_learns_and_keeps_the_rows_it_did_not_see(
    children: Children, tmp_path: Path, network: str
) -> None:
    told: list[float] = []
    recipe = _recipe(DIGITS | {"network": network, "epochs": 4, "minimum_accuracy": 0.9})

    reply = _acquire(
        children, recipe, tmp_path, on_progress=lambda fraction, _: told.append(fraction)
    )

    held_out = load_arrays(tmp_path / HELD_OUT)
    assert reply.metrics["accuracy"] >= 0.9
    assert (held_out["ink"].shape, held_out["labels"].shape) == ((450, 1, 8, 8), (450,))
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_training_twice_gives_the_same_weights(children: Children, tmp_path: Path) -> None:
    files = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        _acquire(children, _recipe(DIGITS | {"minimum_accuracy": 0.1}), folder)
        files.append((folder / "model.pt").read_bytes())

    assert files[0] == files[1]


def test_training_that_ends_below_its_mark_fails(children: Children, tmp_path: Path) -> None:
    recipe = _recipe(DIGITS | {"epochs": 1, "minimum_accuracy": 0.999})

    with pytest.raises(AcquisitionError, match=r"expected accuracy 0\.999, got 0\.\d+ on 450"):
        _acquire(children, recipe, tmp_path)

    assert not list(tmp_path.iterdir())


def test_training_asks_for_an_input_of_a_digits_size(children: Children, tmp_path: Path) -> None:
    good = _recipe(DIGITS)
    ink = good.signature.inputs[0].model_dump() | {"shape": ["batch", 1, 8, 9]}
    signature = good.signature.model_dump() | {"inputs": [ink]}

    with pytest.raises(
        ConfigurationError, match=r"64 pixels a row, got ink float32.batch, 1, 8, 9"
    ):
        _acquire(children, _recipe(DIGITS, signature=signature), tmp_path)


# --- torchvision --------------------------------------------------------------------------


def test_seeded_weights_hide_nothing_and_tell_inputs_apart(
    children: Children, tmp_path: Path
) -> None:
    recipe = _recipe(SEEDED)

    reply = _acquire(children, recipe, tmp_path)

    scores = _answers(children, recipe, tmp_path)
    look = Weights(path=tmp_path / "model.pt")
    call = Call("look", "tried", Family.TORCH)
    constant = children.call(torch_functions.constant_tensors, look, call).value
    assert "random weights by seed 3" in reply.notes[0]
    assert constant.names == ()
    assert np.isfinite(scores).all()
    assert np.abs(scores[0] - scores[1]).max() > 0.01 * np.abs(scores).max()


def test_a_network_that_computes_its_widths_by_tensors_is_opened(
    children: Children, tmp_path: Path
) -> None:
    """RegNet does, and tensors without data, of which networks are built first, give no widths."""
    recipe = _recipe({"kind": "torchvision", "model": "regnet_x_400mf"})
    _acquire(children, recipe, tmp_path)

    assert np.isfinite(_answers(children, recipe, tmp_path)).all()


def test_another_seed_is_another_model(children: Children, tmp_path: Path) -> None:
    scores = []
    for seed in (3, 3, 4):
        recipe = _recipe(SEEDED | {"seed": seed})
        _acquire(children, recipe, tmp_path)
        scores.append(_answers(children, recipe, tmp_path))

    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.abs(scores[0] - scores[2]).max() > 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"model": "shuflenet_v2_x0_5"}, r"nearest: .*shufflenet_v2_x0_5", id="model"),
        pytest.param({"weights": "IMAGENET1K_V7"}, "expected one of: IMAGENET1K_V1", id="weights"),
        pytest.param(
            {"download": {"uri": "file:///w", "sha256": "1" * 64}},
            "begins with f707e7126e, got 111111111111",
            id="digest-of-other-weights",
        ),
    ],
)
def test_a_recipe_that_torchvision_contradicts_is_told_what_is_right(
    children: Children, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        _acquire(children, _recipe(PUBLISHED | change), tmp_path / "out", tmp_path / "none")


def test_a_checkpoint_of_another_architecture_is_refused(
    children: Children, tmp_path: Path
) -> None:
    weights = _program(children, tmp_path / "weights.pth", form="checkpoint")

    with pytest.raises(AcquisitionError, match=r"does not fit ShuffleNetV2 .Missing key"):
        _acquire(children, _recipe(PUBLISHED), tmp_path / "out", weights)


@pytest.mark.parametrize("wrapped", [False, True], ids=["pickle", "zip-of-a-pickle"])
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(
    children: Children, tmp_path: Path, *, wrapped: bool
) -> None:
    trap = tmp_path / "trap"
    weights = tmp_path / "weights.pth"
    poison = pickle.dumps({"weight": _MakesFolder(trap)}, protocol=2)
    if wrapped:
        _zipped(weights, {"data.pkl": poison, "version": b"3", "byteorder": b"little"})
    else:
        weights.write_bytes(poison)

    with pytest.raises(AcquisitionError, match=r"weights\.pth: not a plain torch checkpoint"):
        _acquire(children, _recipe(PUBLISHED), tmp_path / "out", weights)

    assert not trap.exists()
    pickle.loads(poison)
    assert trap.exists()  # it was live


def test_a_corrupt_checkpoint_is_refused(children: Children, tmp_path: Path) -> None:
    whole = _program(children, tmp_path / "weights.pth", form="checkpoint").read_bytes()
    (tmp_path / "weights.pth").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(AcquisitionError, match="not a plain torch checkpoint"):
        _acquire(children, _recipe(PUBLISHED), tmp_path / "out", tmp_path / "weights.pth")


# --- programs -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["script", "trace", "export"])
def test_a_program_answers_as_it_did_when_it_was_saved(
    children: Children, tmp_path: Path, form: str
) -> None:
    program = _program(children, tmp_path / "saved.pt2", form=form)

    reply = _acquire(children, _recipe(PROGRAM), tmp_path / "out", program)

    first = _answers(children, _recipe(PROGRAM), tmp_path / "out")
    again = _answers(children, _recipe(PROGRAM), tmp_path / "out")
    assert ("torch.export program" in reply.notes[0]) == (form == "export")
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("form", ["trace", "export"])
def test_a_program_fixed_in_training_mode_is_refused(
    children: Children, tmp_path: Path, form: str
) -> None:
    program = _program(children, tmp_path / "saved.pt2", form=form, training=True)

    with pytest.raises(AcquisitionError, match=r"saved in training mode .*batch_norm, dropout"):
        _acquire(children, _recipe(PROGRAM), tmp_path / "out", program)


def test_a_script_saved_in_training_mode_is_set_to_evaluation(
    children: Children, tmp_path: Path
) -> None:
    answers = []
    for training in (True, False):
        program = _program(children, tmp_path / "p.pt", form="script", training=training)
        _acquire(children, _recipe(PROGRAM), tmp_path / "out", program)
        answers.append(_answers(children, _recipe(PROGRAM), tmp_path / "out"))

    np.testing.assert_array_equal(answers[0], answers[1])


def test_a_program_of_one_batch_size_is_refused(children: Children, tmp_path: Path) -> None:
    program = _program(children, tmp_path / "p.pt2", form="export", fixed_batch=True)

    with pytest.raises(SignatureMismatchError, match=r"got from torch for float32.3, 1, 8, 8"):
        _acquire(children, _recipe(PROGRAM), tmp_path / "out", program)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"<html>not found</html>", "not a torch program", id="html"),
        pytest.param(None, "It is a pickled checkpoint", id="checkpoint"),
    ],
)
def test_what_is_no_program_is_refused(
    children: Children, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = _program(children, tmp_path / "p.pt", form="checkpoint")
    if content:
        path.write_bytes(content)

    with pytest.raises(AcquisitionError, match=words):
        _acquire(children, _recipe(PROGRAM), tmp_path / "out", path)


@pytest.mark.parametrize(
    ("record", "change", "words"),
    [
        pytest.param(
            "models/model.json",
            lambda text: text.replace(b'"expr_str": "', b'"expr_str": "exit(7)+', 1),
            "'expr_str' could run code",
            id="an-expression-that-torch-evaluates",
        ),
        pytest.param(
            "models/model.json",
            lambda text: text.replace(b"torch.ops.aten.relu.default", b"torch.hub.load", 1),
            "'target' could run code",
            id="an-operator-that-is-none",
        ),
        pytest.param(
            "weights_config.json",
            lambda text: text.replace(b'"use_pickle": false', b'"use_pickle": true', 1),
            "'use_pickle' could run code",
            id="a-weight-that-torch-unpickles",
        ),
    ],
)
def test_a_program_that_would_run_code_is_refused(
    children: Children, tmp_path: Path, record: str, change: Callable[[bytes], bytes], words: str
) -> None:
    program = _changed(_program(children, tmp_path / "p.pt2", form="export"), record, change)

    with pytest.raises(AcquisitionError, match=words):
        _acquire(children, _recipe(PROGRAM), tmp_path / "out", program)


def test_a_programs_example_inputs_are_not_unpickled_freely(
    children: Children, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    records = {"data.pkl": pickle.dumps(_MakesFolder(trap), protocol=2), "version": b"3"}
    poison = _zipped(tmp_path / "poison", records | {"byteorder": b"little"}).read_bytes()
    whole = _program(children, tmp_path / "p.pt2", form="export")
    program = _changed(whole, "sample_inputs/model.pt", lambda _: poison)

    with pytest.raises(AcquisitionError, match="does not load"):
        _acquire(children, _recipe(PROGRAM), tmp_path / "out", program)

    assert not trap.exists()


# --- the runner ---------------------------------------------------------------------------


def test_the_runner_names_torch_and_its_device(children: Children, tmp_path: Path) -> None:
    _acquire(children, _recipe(SEEDED), tmp_path)
    save_arrays(tmp_path / "in.npz", {"ink": np.zeros((1, 3, 64, 64), np.float32)})
    request = Run(
        recipe=_recipe(SEEDED), folder=tmp_path, inputs=tmp_path / "in.npz", answers=tmp_path / "o"
    )

    ran = children.call(torch_functions.run, request, Call("run", "tried", Family.TORCH)).value

    assert ran.runtime.startswith("torch 2.")
    assert ran.runtime.endswith(" cpu")


def test_inputs_of_other_names_are_refused(children: Children, tmp_path: Path) -> None:
    _acquire(children, _recipe(SEEDED), tmp_path)
    save_arrays(tmp_path / "in.npz", {"images": np.zeros((1, 3, 64, 64), np.float32)})
    request = Run(
        recipe=_recipe(SEEDED), folder=tmp_path, inputs=tmp_path / "in.npz", answers=tmp_path / "o"
    )

    with pytest.raises(SignatureMismatchError, match="expected ink, got images"):
        children.call(torch_functions.run, request, Call("run", "tried", Family.TORCH))


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="there is a GPU")  # noqa: PTH110
@pytest.mark.parametrize("what", ["train", "run"])
def test_a_gpu_that_is_not_there_is_never_replaced_by_the_cpu(
    children: Children, tmp_path: Path, what: str
) -> None:
    recipe = _recipe(DIGITS | {"minimum_accuracy": 0.1})

    def work() -> None:
        if what == "train":
            _acquire(children, recipe.model_copy(update={"device": "cuda"}), tmp_path)
        _acquire(children, recipe, tmp_path)
        _answers(children, recipe, tmp_path, device="cuda")

    with pytest.raises(ConfigurationError, match=r"'cuda' is not there .*got torch 2\..* 0 GPUs"):
        work()


@pytest.mark.parametrize("name", ["mobilenet-v2", "resnet50", "resnet50-seeded", "digits-cnn"])
def test_the_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(name, CATALOGUE)

    assert recipe.source_format == "torch"
    assert recipe.seeded == ("seeded" in name)
