"""Every source that can answers in float64 from the same numbers, and says why where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.artifact import ModelFormat
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.runners import FAMILIES
from tasks.sources import HELD_OUT, AcquireRequest, sklearn_training
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.float64 import (
    ROWS,
    Float64Reply,
    Float64Request,
    LabelsRequest,
    answer_in_float64,
    find_labels,
    spread_rows,
)
from tests.support.keras_nets import NetRequest, build_net
from tests.support.torch_functions import Program, save_program

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DOWNLOAD = {"uri": "file:///m", "sha256": "0" * 64}
TORCH = {"kind": "torch-program", "download": DOWNLOAD}
KERAS = {"kind": "keras-file", "download": DOWNLOAD}
TABLE = {
    "kind": "train-sklearn",
    "dataset": "wine",
    "steps": [
        {"estimator": "sklearn.preprocessing.StandardScaler"},
        {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 500}},
    ],
}


def recipe_of(source: dict[str, Any], shape: tuple[int, ...], classes: int) -> Recipe:
    domain = {"kind": "range", "low": 0, "high": 2}
    scores = {"name": "scores", "dtype": "float32", "shape": ["batch", classes]}
    if source["kind"] == "train-sklearn":
        scores["role"] = "probabilities"
    inputs = {"name": "x", "dtype": "float32", "shape": ["batch", *shape], "domain": domain}
    return Recipe.model_validate(
        {
            "name": "wide",
            "description": "A model.",
            "licence": "none",
            "source": source,
            "signature": {"inputs": [inputs], "outputs": [scores]},
        }
    )


def answered(
    children: Children, recipe: Recipe, model: Path, folder: Path, rows: int = 5
) -> tuple[Float64Reply, NDArray[Any], dict[str, NDArray[Any]]]:
    """Return the reply, the float32 answers, and what was written of float64."""
    for name in ("probes", "narrow", "wide"):
        (folder / name).mkdir()
    [spec] = recipe.signature.inputs
    shape = [each for each in spec.shape if isinstance(each, int)]
    inputs = np.random.default_rng(0).uniform(0, 2, (rows, *shape)).astype(np.float32)
    save_arrays(folder / "probes" / "random.npz", {"x": inputs})
    call = Call("float64", recipe.name, FAMILIES[recipe.source_format])
    narrow = AnswerRequest(
        recipe=recipe,
        format=recipe.source_format,
        model=model,
        probes=folder / "probes",
        names=("random",),
        device="cpu",
        folder=folder / "narrow",
    )
    children.call(answer, narrow, call)
    asked = Float64Request(
        recipe=recipe,
        model=model,
        probes=folder / "probes",
        names=("random",),
        folder=folder / "wide",
    )
    reply = children.call(answer_in_float64, asked, call).value
    path = folder / "wide" / "random.npz"
    found = load_arrays(path) if path.is_file() else {}
    return reply, load_arrays(folder / "narrow" / "random.npz")["scores"], found


def require_wider(narrow: NDArray[Any], wide: dict[str, NDArray[Any]]) -> None:
    assert narrow.dtype == np.float32
    assert wide["scores"].dtype == np.float64
    np.testing.assert_array_equal(wide[ROWS], np.arange(len(narrow)))
    largest = np.abs(wide["scores"]).max()
    stray = np.abs(narrow - wide["scores"]).max() / largest
    assert stray < 1e-5
    # it has digits that float32 has not
    assert (wide["scores"] != wide["scores"].astype(np.float32)).any()


@pytest.mark.parametrize("form", ["script", "trace", "export"])
def test_a_torch_program_answers_in_float64(form: str, children: Children, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    path = model / ("program.pt2" if form == "export" else "program.pt")
    program = Program.model_validate({"path": path, "form": form})
    children.call(save_program, program, Call("save", "wide", Family.TORCH))

    reply, narrow, wide = answered(children, recipe_of(TORCH, (1, 8, 8), 3), model, tmp_path)

    assert reply.words.startswith("float64 by torch"), reply.words
    assert reply.rows == 5
    require_wider(narrow, wide)


def keras_net(children: Children, net: str, folder: Path) -> Path:
    model = folder / "model"
    model.mkdir()
    request = NetRequest(net=net, folder=model)
    children.call(build_net, request, Call("save", "wide", Family.TENSORFLOW))
    return model


@pytest.mark.parametrize(("net", "shape"), [("cnn", (16, 16, 3)), ("sequential", (20,))])
def test_a_keras_network_answers_in_float64(
    net: str, shape: tuple[int, ...], children: Children, tmp_path: Path
) -> None:
    model = keras_net(children, net, tmp_path)

    reply, narrow, wide = answered(children, recipe_of(KERAS, shape, 5), model, tmp_path)

    assert reply.words.startswith("float64 by keras"), reply.words
    require_wider(narrow, wide)


def test_a_network_of_16_bits_says_that_float64_is_no_measure_of_it(
    children: Children, tmp_path: Path
) -> None:
    model = keras_net(children, "half", tmp_path)

    reply, _, wide = answered(children, recipe_of(KERAS, (64,), 3), model, tmp_path)

    assert reply.words.startswith("no float64: it computes in 16 bits on purpose")
    assert not wide


def test_a_scikit_learn_pipeline_answers_in_float64(children: Children, tmp_path: Path) -> None:
    model, recipe = tmp_path / "model", recipe_of(TABLE, (13,), 3)
    model.mkdir()
    request = AcquireRequest(recipe=recipe, downloads=(), folder=model)
    children.call(sklearn_training.acquire, request, Call("train", "wide", Family.SKLEARN))

    reply, narrow, wide = answered(children, recipe, model, tmp_path)

    assert reply.words.startswith("float64 by scikit-learn"), reply.words
    require_wider(narrow, wide)


def test_a_graph_whose_dtypes_are_fixed_says_so_and_fails_nothing(
    children: Children, tmp_path: Path
) -> None:
    recipe = recipe_of({"kind": "saved-model", "download": DOWNLOAD}, (4,), 3)
    request = Float64Request(
        recipe=recipe, model=tmp_path, probes=tmp_path, names=(), folder=tmp_path
    )

    reply = children.call(answer_in_float64, request, Call("float64", "wide", Family.LIGHT)).value

    assert reply.rows == 0
    assert reply.words == (
        f"no float64: {ModelFormat.SAVED_MODEL.label}: its graph has its dtypes fixed"
    )


@pytest.mark.parametrize(
    ("count", "at_most", "expected"),
    [(3, 64, [0, 1, 2]), (8, 1, [0]), (10, 4, [0, 2, 5, 7])],
)
def test_rows_are_spread_evenly(count: int, at_most: int, expected: list[int]) -> None:
    assert spread_rows(count, at_most).tolist() == expected


@pytest.mark.parametrize(
    ("first", "expected"), [(0, (7, 8)), (1, ())], ids=["the-first-rows", "other-rows"]
)
def test_true_labels_are_those_of_the_very_rows_or_none(
    first: int, expected: tuple[int, ...], tmp_path: Path
) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    save_arrays(tmp_path / HELD_OUT, {"x": rows, "labels": np.array([7, 8, 9, 7])})
    save_arrays(tmp_path / "held-out.npz", {"x": rows[first : first + 2]})
    request = LabelsRequest(
        recipe=recipe_of(TABLE, (3,), 3), probes=tmp_path, held_out=tmp_path / HELD_OUT
    )

    assert find_labels(request).labels == expected
