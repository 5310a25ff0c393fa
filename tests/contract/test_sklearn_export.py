"""What skl2onnx writes is the recipe's model: by name, by shape, and by its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tasks.arrays import load_arrays
from tasks.catalogue import load_recipe
from tasks.converters import ConvertReply, ConvertRequest, all_converters, convert_function
from tasks.domain.errors import ConfigurationError, ExportError, ReleaseError
from tasks.domain.recipe import Recipe, Rows
from tasks.domain.signature import Choice
from tasks.domain.sources import SklearnPickle
from tasks.fetch import fetch
from tasks.isolation import Call, Children, Family
from tasks.runners.onnxruntime_runner import OnnxruntimeRunner
from tasks.runners.sklearn_runner import SklearnRunner
from tasks.sources import HELD_OUT, SOURCES, AcquireRequest
from tasks.steps.verify_onnx import VerifyOnnxReply, VerifyOnnxRequest, verify_onnx

_CALL = Call("test", "model", Family.SKLEARN, fails_as=ReleaseError)
_SHAPES = {"iris": (4, 3), "wine": (13, 3), "breast_cancer": (30, 2), "diabetes": (10, 0)}


def _step(path: str, **params: Any) -> dict[str, Any]:
    return {"estimator": f"sklearn.{path}", "params": params}


def _out(role: str, dtype: str, *dims: int, name: str = "") -> dict[str, Any]:
    return {"name": name or role, "dtype": dtype, "shape": ["batch", *dims], "role": role}


def _recipe(source: dict[str, Any], outputs: list[dict[str, Any]], **changes: Any) -> Recipe:
    text = source["kind"] == "sklearn-pickle"
    words = {"kind": "choice", "values": ["a café", "b", ""]}
    columns = () if text else (_SHAPES[source["dataset"]][0],)
    table = {
        "name": "rows",
        "dtype": "string" if text else "float32",
        "shape": ["batch", *columns],
        "domain": words if text else {"kind": "range", "low": 0, "high": 8},
    }
    fields = {
        "name": "model",
        "description": "One of many.",
        "licence": "none",
        "source": source,
        "signature": {"inputs": [table | changes.pop("input", {})], "outputs": outputs},
    }
    return Recipe.model_validate(fields | changes)


def _trained(dataset: str, *steps: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    return {"kind": "train-sklearn", "dataset": dataset, "steps": steps, "seed": seed}


def _acquire(
    children: Children, recipe: Recipe, folder: Path, downloads: tuple[Path, ...] = ()
) -> Path:
    (folder / "source").mkdir(parents=True)
    request = AcquireRequest(recipe=recipe, downloads=downloads, folder=folder / "source")
    children.call(SOURCES[recipe.source.kind].acquire, request, _CALL)
    return folder / "source"


def _export(children: Children, recipe: Recipe, folder: Path) -> ConvertReply:
    (folder / "onnx").mkdir()
    request = ConvertRequest(recipe=recipe, source=folder / "source", folder=folder / "onnx")
    return children.call(convert_function("skl2onnx"), request, _CALL).value


def _verify(children: Children, recipe: Recipe, folder: Path) -> VerifyOnnxReply:
    request = VerifyOnnxRequest(recipe=recipe, model=folder / "onnx")
    call = Call("verify", recipe.name, Family.ONNXRUNTIME, fails_as=ReleaseError)
    return children.call(verify_onnx, request, call).value


def _answers(recipe: Recipe, folder: Path, rows: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    name = recipe.signature.inputs[0].name
    source = SklearnRunner.load(recipe, folder / "source").run({name: rows})
    return source, OnnxruntimeRunner.load(recipe, folder / "onnx", "cpu").run({name: rows})


def _assert_equal(reference: dict[str, Any], candidate: dict[str, Any]) -> None:
    assert list(reference) == list(candidate)
    for name, expected in reference.items():
        assert candidate[name].dtype == expected.dtype
        assert candidate[name].shape == expected.shape
        if expected.dtype.kind == "f":
            scale = np.abs(expected).max()
            np.testing.assert_allclose(candidate[name], expected, rtol=1e-5, atol=1e-5 * scale)
        else:
            np.testing.assert_array_equal(candidate[name], expected)


_LABEL, _SCORES = _out("labels", "int64"), _out("probabilities", "float32", 3)
_LOGISTIC = _step("linear_model.LogisticRegression", max_iter=1000)
_SCALER = _step("preprocessing.StandardScaler")
_FOREST = _step("ensemble.RandomForestClassifier", n_estimators=16)


@pytest.mark.parametrize(
    ("dataset", "steps", "outputs", "changes"),
    [
        pytest.param("iris", [_FOREST], [_LABEL, _SCORES], {}, id="forest"),
        pytest.param("wine", [_SCALER, _LOGISTIC], [_LABEL, _SCORES], {}, id="scaled-logistic"),
        pytest.param("wine", [_SCALER, _FOREST], [_SCORES, _LABEL], {}, id="scores-before-labels"),
        pytest.param("iris", [_FOREST], [_LABEL], {}, id="labels-alone"),
        pytest.param("iris", [_LOGISTIC], [_out("logits", "float32", 3), _LABEL], {}, id="logits"),
        pytest.param(
            "breast_cancer",
            [_SCALER, _step("svm.LinearSVC")],
            [_LABEL, _out("logits", "float32")],
            {},
            id="one-logit-of-two-classes",
        ),
        pytest.param(
            "diabetes",
            [_step("linear_model.Ridge")],
            [_out("values", "float32")],
            {},
            id="regression-without-second-axis",
        ),
        pytest.param(
            "diabetes",
            [_step("ensemble.GradientBoostingRegressor", n_estimators=10)],
            [_out("values", "float64", 1)],
            {"input": {"dtype": "float64"}, "opset": 21},
            id="regression-in-float64",
        ),
        pytest.param(
            "wine",
            [_SCALER, _step("decomposition.PCA", n_components=2)],
            [_out("values", "float32", 2)],
            {"opset": 13},
            id="transformers",
        ),
        pytest.param(
            "iris",
            [_FOREST],
            [
                _out("labels", "int32", name="label"),
                _out("probabilities", "float64", 3, name="skl"),
            ],
            {"opset": 9, "input": {"name": "variable"}},
            id="awkward-names-and-other-dtypes",
        ),
    ],
)
def test_the_export_is_the_recipes_model(
    children: Children,
    tmp_path: Path,
    dataset: str,
    steps: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    changes: dict[str, Any],
) -> None:
    recipe = _recipe(_trained(dataset, *steps), outputs, **dict(changes))
    source = _acquire(children, recipe, tmp_path)

    _export(children, recipe, tmp_path)
    verified = _verify(children, recipe, tmp_path)

    rows = load_arrays(source / HELD_OUT)[recipe.signature.inputs[0].name]
    assert verified.facts.opsets["ai.onnx"] == recipe.opset
    _assert_equal(*_answers(recipe, tmp_path, rows))


def test_labels_alone_leave_no_scores_in_the_graph(children: Children, tmp_path: Path) -> None:
    recipe = _recipe(_trained("wine", _SCALER, _LOGISTIC), [_LABEL])
    _acquire(children, recipe, tmp_path)

    _export(children, recipe, tmp_path)

    assert "ai.onnx.ml.Normalizer" not in _verify(children, recipe, tmp_path).facts.operators


def test_a_forest_answers_alike_where_its_trees_are_at_odds(
    children: Children, tmp_path: Path
) -> None:
    recipe = load_recipe("iris-random-forest", Path("models"))
    _acquire(children, recipe, tmp_path)
    _export(children, recipe, tmp_path)
    rows = np.random.default_rng(0).uniform(0, 8, (20_000, 4)).astype(np.float32)

    reference, candidate = _answers(recipe, tmp_path, rows)

    best = np.sort(reference["probabilities"], axis=1)
    assert (best[:, -1] == best[:, -2]).sum() > 50
    np.testing.assert_array_equal(candidate["label"], reference["label"])
    np.testing.assert_array_equal(candidate["probabilities"], reference["probabilities"])


def test_another_seeds_forest_does_not_pass_for_this_one(
    children: Children, tmp_path: Path
) -> None:
    ours = _recipe(_trained("iris", _FOREST, seed=0), [_LABEL, _SCORES])
    theirs = _recipe(_trained("iris", _FOREST, seed=1), [_LABEL, _SCORES])
    for recipe, folder in ((ours, tmp_path / "ours"), (theirs, tmp_path / "theirs")):
        _acquire(children, recipe, folder)
    _export(children, theirs, tmp_path / "theirs")
    (tmp_path / "theirs" / "onnx").rename(tmp_path / "ours" / "onnx")
    rows = np.random.default_rng(0).uniform(0, 8, (64, 4)).astype(np.float32)

    reference, candidate = _answers(ours, tmp_path / "ours", rows)

    with pytest.raises(AssertionError):
        _assert_equal(reference, candidate)


# --- text ----------------------------------------------------------------------------------

_SENTENCES = ["un café noir", "the naïve résumé", "a tea", "tea for two", "東京 の 茶", "x y_z 42"]


def _text_model(folder: Path, vectorizer: Any, labels: list[Any]) -> tuple[Path, ...]:
    """Fit a vectorizer and a classifier, and leave each in a file of its own."""
    table = vectorizer.fit_transform(_SENTENCES)
    paths = (folder / "vectorizer.joblib", folder / "model.joblib")
    joblib.dump(vectorizer, paths[0])
    joblib.dump(LogisticRegression().fit(table, labels), paths[1])
    return paths


def _text_recipe(outputs: list[dict[str, Any]]) -> Recipe:
    downloads = [{"uri": f"file:///{name}.joblib", "sha256": "0" * 64} for name in "ab"]
    source = {"kind": "sklearn-pickle", "downloads": downloads, "trusted": True}
    return _recipe(source, outputs)


@pytest.mark.parametrize(
    "vectorizer",
    [
        pytest.param(TfidfVectorizer(), id="tfidf"),
        pytest.param(TfidfVectorizer(stop_words="english", sublinear_tf=True), id="stop-words"),
        pytest.param(CountVectorizer(ngram_range=(1, 2)), id="pairs-of-words"),
        pytest.param(CountVectorizer(token_pattern=r"(?u)\b\w+\b"), id="single-letters"),
        pytest.param(CountVectorizer(binary=True, lowercase=False), id="case-kept"),
    ],
)
def test_text_is_split_as_python_splits_it(
    children: Children, tmp_path: Path, vectorizer: Any
) -> None:
    recipe = _text_recipe([_out("labels", "string"), _out("probabilities", "float32", 2)])
    paths = _text_model(tmp_path, vectorizer, ["fr", "fr", "en", "en", "en", "fr"])
    _acquire(children, recipe, tmp_path, paths)
    rows = np.array([
        *_SENTENCES, "", "  ", "!?", "UN CAFÉ NOIR", "NAÏVE, résumé; tea-for-two", "unknown words",
        "cafés caf\u00e9", "cafe\u0301", "y_z\n42\ttea", "東京の茶", "Ünïcödé TEA", "tea " * 500,
    ])  # fmt: skip

    reply = _export(children, recipe, tmp_path)
    verified = _verify(children, recipe, tmp_path)

    _assert_equal(*_answers(recipe, tmp_path, rows))
    assert verified.notes == ("com.microsoft Tokenizer: runs in ONNX Runtime alone",)
    assert any("C.UTF-8" in note for note in reply.notes)


def test_the_text_model_of_others_answers_alike(children: Children, tmp_path: Path) -> None:
    recipe = load_recipe("profanity", Path("models"))
    source, real, domain = recipe.source, recipe.parity.real, recipe.signature.inputs[0].domain
    assert isinstance(source, SklearnPickle)
    assert isinstance(real, Rows)
    assert isinstance(domain, Choice)
    downloads = tuple(fetch(each, tmp_path / "cache") for each in source.downloads)
    _acquire(children, recipe, tmp_path, downloads)
    _export(children, recipe, tmp_path)

    verified = _verify(children, recipe, tmp_path)
    reference, candidate = _answers(
        recipe, tmp_path, np.array([*real.values["text"], *domain.values])
    )

    assert verified.facts.operators["com.microsoft.Tokenizer"] == 1
    assert 10 < reference["label"].sum() < 25
    _assert_equal(reference, candidate)


def test_stop_words_between_pairs_of_words_are_refused(children: Children, tmp_path: Path) -> None:
    recipe = _text_recipe([_LABEL])
    vectorizer = TfidfVectorizer(stop_words=["for"], ngram_range=(1, 2))
    _acquire(children, recipe, tmp_path, _text_model(tmp_path, vectorizer, [0, 1, 0, 1, 0, 1]))

    with pytest.raises(ExportError, match="TfidfVectorizer: scikit-learn drops stop words before"):
        _export(children, recipe, tmp_path)


# --- what cannot be done -------------------------------------------------------------------


def test_an_estimator_without_a_converter_is_named(children: Children, tmp_path: Path) -> None:
    spreading = _step("semi_supervised.LabelSpreading")
    recipe = _recipe(_trained("iris", _SCALER, spreading), [_LABEL, _SCORES])
    _acquire(children, recipe, tmp_path)

    with pytest.raises(ExportError) as caught:
        _export(children, recipe, tmp_path)

    assert "LabelSpreading" in str(caught.value)
    assert "supported_converters()" in str(caught.value)
    assert not list((tmp_path / "onnx").iterdir())


def test_probabilities_and_logits_at_once_are_refused(children: Children, tmp_path: Path) -> None:
    recipe = _recipe(_trained("iris", _LOGISTIC), [_SCORES, _out("logits", "float32", 3)])
    _acquire(children, recipe, tmp_path)

    with pytest.raises(ConfigurationError, match="either probabilities or logits"):
        _export(children, recipe, tmp_path)


def test_an_opset_beyond_what_skl2onnx_was_tested_with_is_noted(
    children: Children, tmp_path: Path
) -> None:
    recipe = _recipe(_trained("iris", _FOREST), [_LABEL], opset=23)
    _acquire(children, recipe, tmp_path)

    reply = _export(children, recipe, tmp_path)

    assert reply.notes == ("opset 23 is newer than skl2onnx was tested with (22)",)


def test_the_converter_is_found_by_its_name() -> None:
    assert "skl2onnx" in {each.name for each in all_converters()}
