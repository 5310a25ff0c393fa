"""scikit-learn models come from training or from files, and nothing untrusted is unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tasks.arrays import load_arrays
from tasks.catalogue import load_recipe
from tasks.domain.errors import AcquisitionError, ConfigurationError, ReleaseError
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.runners.sklearn_files import load_estimator
from tasks.runners.sklearn_runner import SklearnRunner
from tasks.sources import HELD_OUT, SOURCES, AcquireReply, AcquireRequest

_FOREST = {"estimator": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimators": 8}}


def _recipe(source: dict[str, Any], columns: int = 4, classes: int = 3) -> Recipe:
    feature_domain = {"kind": "range", "low": 0, "high": 8}
    table = {"name": "features", "dtype": "float32", "shape": ["batch", columns]}
    return Recipe.model_validate(
        {
            "name": "flowers",
            "description": "Which iris?",
            "licence": "none",
            "source": source,
            "signature": {
                "inputs": [table | {"domain": feature_domain}],
                "outputs": [
                    {"name": "label", "dtype": "int64", "shape": ["batch"], "role": "labels"},
                    {
                        "name": "scores",
                        "dtype": "float32",
                        "shape": ["batch", classes],
                        "role": "probabilities",
                    },
                ],
            },
        }
    )


def _training(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "train-sklearn", "dataset": "iris", "steps": steps or (_FOREST,)} | more


def _acquire(
    children: Children, recipe: Recipe, folder: Path, downloads: tuple[Path, ...] = ()
) -> AcquireReply:
    kind = SOURCES[recipe.source.kind]
    folder.mkdir(exist_ok=True)
    request = AcquireRequest(recipe=recipe, downloads=downloads, folder=folder)
    call = Call("acquire", recipe.name, kind.family, fails_as=ReleaseError)
    return children.call(kind.acquire, request, call).value


# --- training ------------------------------------------------------------------------------


def test_training_tells_its_accuracy_on_rows_it_keeps(children: Children, tmp_path: Path) -> None:
    reply = _acquire(children, _recipe(_training()), tmp_path)

    held_out = load_arrays(tmp_path / HELD_OUT)
    truth = load_iris(return_X_y=True)[1]
    answers = SklearnRunner.load(_recipe(_training()), tmp_path).run(held_out)
    assert held_out["features"].shape == (38, 4)
    assert held_out["features"].dtype == np.float32
    assert np.bincount(held_out["labels"]).min() >= len(truth) // 3 // 4
    assert reply.metrics["accuracy"] == np.mean(answers["label"] == held_out["labels"])
    assert reply.metrics["accuracy"] > 0.85


def test_the_same_seed_trains_the_same_model_and_another_seed_another(
    children: Children, tmp_path: Path
) -> None:
    rows: Any = {"features": np.random.default_rng(0).uniform(0, 8, (64, 4)).astype(np.float32)}
    answers = []
    for number, seed in enumerate([3, 3, 4]):
        recipe = _recipe(_training(seed=seed))
        _acquire(children, recipe, tmp_path / str(number))
        answers.append(SklearnRunner.load(recipe, tmp_path / str(number)).run(rows)["scores"])

    np.testing.assert_array_equal(answers[0], answers[1])
    assert (answers[0] != answers[2]).any()


def test_a_regression_tells_its_r2(children: Children, tmp_path: Path) -> None:
    step = {"estimator": "sklearn.linear_model.Ridge", "params": {"alpha": 0.01}}
    fields = _recipe(_training(step, dataset="diabetes"), 10).model_dump()
    value = {"name": "progress", "dtype": "float32", "shape": ["batch"]}
    recipe = Recipe.model_validate(
        fields | {"signature": {"inputs": fields["signature"]["inputs"], "outputs": [value]}}
    )

    reply = _acquire(children, recipe, tmp_path)

    assert 0.2 < reply.metrics["r2"] < 1


def test_a_warning_of_the_training_becomes_a_note(children: Children, tmp_path: Path) -> None:
    hurried = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 1}}

    reply = _acquire(children, _recipe(_training(hurried)), tmp_path)

    assert any(note.startswith("ConvergenceWarning: ") for note in reply.notes)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        pytest.param(
            {"estimator": "sklearn.ensemble.RandomForrestClassifier"},
            "no estimator 'sklearn.ensemble.RandomForrestClassifier' (nearest: "
            "'sklearn.ensemble.RandomForestClassifier')",
            id="misspelt-class",
        ),
        pytest.param(
            {"estimator": "sklearn.svm.LogisticRegression"},
            "(nearest: 'sklearn.linear_model.LogisticRegression')",
            id="wrong-module",
        ),
        pytest.param(
            {"estimator": "sklearn.datasets.load_iris"},
            "has no estimator 'sklearn.datasets.load_iris'",
            id="not-an-estimator",
        ),
        pytest.param(
            {"estimator": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimator": 9}},
            "has no parameter 'n_estimator' (nearest: 'n_estimators')",
            id="unknown-parameter",
        ),
        pytest.param(
            {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"C": "much"}},
            "The 'C' parameter of LogisticRegression must be a float",
            id="bad-value",
        ),
        pytest.param(
            {"estimator": "sklearn.linear_model.Ridge"},
            "'scores' has the role 'probabilities', but Ridge has no predict_proba",
            id="no-such-role",
        ),
    ],
)
def test_a_faulty_step_is_named(
    children: Children, tmp_path: Path, step: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _acquire(children, _recipe(_training(step)), tmp_path)

    assert words in str(caught.value)
    assert str(caught.value).startswith("flowers: ")


@pytest.mark.parametrize(
    ("columns", "classes", "words"),
    [
        (5, 3, r"trained on 4 columns \(expected \[batch, 4\], got \[batch, 5\]\)"),
        (4, 2, r"knows 3 classes \(expected \[batch, 3\], got \[batch, 2\]\)"),
    ],
)
def test_a_shape_that_contradicts_the_model_is_refused(
    children: Children, tmp_path: Path, columns: int, classes: int, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        _acquire(children, _recipe(_training(), columns, classes), tmp_path)


# --- files of others -----------------------------------------------------------------------


def _files(*names: str, trusted: bool = True) -> dict[str, Any]:
    downloads = [{"uri": f"file:///{name}", "sha256": "0" * 64} for name in names]
    return {"kind": "sklearn-pickle", "downloads": downloads, "trusted": trusted}


@pytest.fixture
def fitted() -> tuple[StandardScaler, LogisticRegression]:
    rows, truth = load_iris(return_X_y=True)
    scaler = StandardScaler().fit(rows.astype(np.float32))
    return scaler, LogisticRegression().fit(scaler.transform(rows.astype(np.float32)), truth)


def test_two_pickles_are_chained_in_their_order(
    children: Children, tmp_path: Path, fitted: tuple[Any, Any]
) -> None:
    paths = (tmp_path / "first", tmp_path / "second")
    for path, estimator in zip(paths, fitted, strict=True):
        joblib.dump(estimator, path)
    recipe = _recipe(_files("scaler.joblib", "model.joblib"))
    rows: Any = load_iris(return_X_y=True)[0][:5].astype(np.float32)

    _acquire(children, recipe, tmp_path / "model", paths)

    answers: Any = SklearnRunner.load(recipe, tmp_path / "model").run({"features": rows})
    expected = fitted[1].predict_proba(fitted[0].transform(rows))
    np.testing.assert_allclose(answers["scores"], expected, rtol=1e-6)
    np.testing.assert_array_equal(answers["label"], fitted[1].predict(fitted[0].transform(rows)))


def test_files_in_the_wrong_order_are_refused(
    children: Children, tmp_path: Path, fitted: tuple[Any, Any]
) -> None:
    paths = (tmp_path / "first", tmp_path / "second")
    for path, estimator in zip(paths, fitted[::-1], strict=True):
        joblib.dump(estimator, path)

    with pytest.raises(AcquisitionError, match=r"model\.joblib: holds a LogisticRegression"):
        _acquire(
            children, _recipe(_files("model.joblib", "scaler.joblib")), tmp_path / "model", paths
        )


def test_a_skops_file_needs_no_trust(children: Children, tmp_path: Path) -> None:
    skops.io.dump(
        LogisticRegression(max_iter=999).fit(*load_iris(return_X_y=True)), tmp_path / "given"
    )
    recipe = _recipe(_files("model.skops", trusted=False))

    _acquire(children, recipe, tmp_path / "model", (tmp_path / "given",))

    assert [each.name for each in (tmp_path / "model").iterdir()] == ["model.skops"]
    assert isinstance(load_estimator(recipe, tmp_path / "model"), LogisticRegression)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_skops_file_with_unvouched_types_needs_trust(
    children: Children, tmp_path: Path, *, trusted: bool
) -> None:
    tree = DecisionTreeClassifier().fit(*load_iris(return_X_y=True))
    skops.io.dump(tree, tmp_path / "given")
    recipe = _recipe(_files("model.skops", trusted=trusted))

    def acquire() -> AcquireReply:
        return _acquire(children, recipe, tmp_path / "model", (tmp_path / "given",))

    if trusted:
        acquire()
        assert (tmp_path / "model" / "model.skops").is_file()
    else:
        with pytest.raises(AcquisitionError, match=r"cannot vouch for: sklearn\.tree\._tree\.Tree"):
            acquire()


class _Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_an_untrusted_pickle_is_never_opened(children: Children, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded")))
    untrusted = _recipe(_files("model.skops", trusted=False))

    with pytest.raises(AcquisitionError, match="does not load as a skops file"):
        _acquire(children, untrusted, tmp_path / "model", (tmp_path / "given",))
    (tmp_path / "given").rename(tmp_path / "model" / "model.joblib")
    with pytest.raises(ConfigurationError, match=r"source\.trusted"):
        load_estimator(untrusted, tmp_path / "model")

    assert not (tmp_path / "exploded").exists()


def test_a_pickle_of_another_version_loads_with_a_note(children: Children, tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=999).fit(*load_iris(return_X_y=True))
    older = pickle.dumps(model).replace(sklearn.__version__.encode(), b"1.8.7")
    (tmp_path / "given").write_bytes(older)

    reply = _acquire(
        children, _recipe(_files("model.pkl")), tmp_path / "model", (tmp_path / "given",)
    )

    assert any("LogisticRegression from version 1.8.7" in note for note in reply.notes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"<html>404</html>", "model.pkl does not load as a pickle", id="html"),
        pytest.param(pickle.dumps([1, 2]), "holds a list", id="no-estimator"),
        pytest.param(b"cno_such_module\nThing\n.", "needs the module 'no_such_module'", id="alien"),
    ],
)
def test_a_file_that_holds_no_model_is_refused(
    children: Children, tmp_path: Path, content: bytes, words: str
) -> None:
    given = tmp_path / "model.pkl"
    given.write_bytes(content)

    with pytest.raises(AcquisitionError) as caught:
        _acquire(children, _recipe(_files("model.pkl")), tmp_path / "model", (given,))

    assert words in str(caught.value)


def test_the_recipes_of_this_kind_are_sound() -> None:
    names = ("iris-random-forest", "wine-logistic-regression", "profanity")

    recipes = [load_recipe(name, Path("models")) for name in names]

    assert {SOURCES[each.source.kind].family for each in recipes} == {Family.SKLEARN}
