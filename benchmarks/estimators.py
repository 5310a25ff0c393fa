"""Every scikit-learn estimator that skl2onnx supports, fitted on real rows, with its recipe."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.domain.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

REAL_ROWS = 32

_PARAMS: dict[str, dict[str, Any]] = {
    "BayesianGaussianMixture": {"n_components": 3},
    "Binarizer": {"threshold": 5.0},
    "GaussianMixture": {"n_components": 3},
    "GaussianRandomProjection": {"n_components": 4},
    "GradientBoostingClassifier": {"n_estimators": 20},
    "GradientBoostingRegressor": {"n_estimators": 20},
    "HistGradientBoostingClassifier": {"max_iter": 20},
    "HistGradientBoostingRegressor": {"max_iter": 20},
    "KBinsDiscretizer": {"encode": "ordinal"},
    "KernelPCA": {"n_components": 3},
    "LocalOutlierFactor": {"novelty": True},
    "MLPClassifier": {"max_iter": 200},
    "MLPRegressor": {"max_iter": 200},
    "PolynomialFeatures": {"degree": 2},
    "QuantileTransformer": {"n_quantiles": 50},
    "QuantileRegressor": {"alpha": 0.0},
    "RadiusNeighborsClassifier": {"radius": 500.0, "outlier_label": 0},
    "RadiusNeighborsRegressor": {"radius": 0.2},
    "RandomTreesEmbedding": {"n_estimators": 10, "sparse_output": False},
    "SVC": {"probability": True},
    "NuSVC": {"probability": True, "nu": 0.2},
}
"""Where the defaults are slow, or fit nothing that can be exported."""

_COUNTS = {"BernoulliNB", "ComplementNB", "MultinomialNB"}
"""These are made for counts, so they learn the pictures of digits, whose pixels count to 16."""

_NOT_TRIED = {
    "ArrayFeatureExtractor": "a part of skl2onnx's own graphs",
    "CategoricalNB": "takes categories counted from 0, of which no row may be new",
    "ColumnTransformer": "takes its parts from the user; a recipe of the tests has one",
    "CountVectorizer": "takes text; the recipe 'profanity' has TfidfVectorizer",
    "DictVectorizer": "takes dictionaries, which are no tensors",
    "FeatureHasher": "takes dictionaries or text",
    "FeatureUnion": "takes its parts from the user",
    "FunctionTransformer": "takes a function from the user",
    "KernelCenterer": "takes a kernel matrix of the rows against those of training",
    "KNeighborsTransformer": "answers a sparse graph of neighbours",
    "LabelBinarizer": "transforms labels, not rows",
    "LabelEncoder": "transforms labels, not rows",
    "MultiOutputClassifier": "answers a list of tables",
    "NearestNeighbors": "answers indices by another method",
    "Pipeline": "takes its parts from the user; several recipes have one",
    "TargetEncoder": "takes categories",
    "TfidfTransformer": "takes counts of words; the recipe 'profanity' has TfidfVectorizer",
    "TfidfVectorizer": "takes text; the recipe 'profanity' has it",
}


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator in a file, and the recipe that releases it."""

    name: str
    recipe: Recipe | None
    file: Path
    why_not: str = ""


def fitted_estimators(folder: Path, only: frozenset[str] = frozenset()) -> Iterator[Fitted]:
    """Fit each supported estimator, on the wine data or, for regressors, the diabetes data.

    Args:
        folder: Where the fitted ones are kept.
        only: Names of classes; empty: all.
    """
    from skl2onnx._supported_operators import sklearn_operator_name_map

    kinds = {kind.__name__: kind for kind in sklearn_operator_name_map if inspect.isclass(kind)}
    for name, kind in sorted(kinds.items()):
        if only and name not in only:
            continue
        if not kind.__module__.startswith("sklearn."):
            continue
        if name in _NOT_TRIED:
            yield Fitted(name, None, folder, _NOT_TRIED[name])
            continue
        try:
            yield _fitted(name, kind, folder)
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes into the table
            words = " ".join(str(error).split())[:200]
            yield Fitted(name, None, folder, f"{type(error).__name__}: {words}")


def _fitted(name: str, kind: type[Any], folder: Path) -> Fitted:
    import joblib
    from sklearn.base import is_regressor
    from sklearn.model_selection import train_test_split

    estimator = _made(name, kind)
    rows, truth = _data("diabetes" if is_regressor(estimator) else _data_set(name))
    seen, unseen, seen_truth, _ = train_test_split(rows, truth, random_state=0, test_size=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(seen, seen_truth)
        outputs = _outputs(estimator, unseen[:5])
    file = folder / f"{name}.joblib"
    joblib.dump(estimator, file)
    return Fitted(name, _recipe(name, file, rows, unseen[:REAL_ROWS], outputs), file)


def _made(name: str, kind: type[Any]) -> Any:  # noqa: ANN401 - scikit-learn has no types
    """Return an unfitted estimator; those that need others get small ones."""
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

    known = inspect.signature(kind.__init__).parameters
    params = {key: value for key, value in _PARAMS.get(name, {}).items() if key in known}
    if "random_state" in known:
        params["random_state"] = 0
    regressor = "Regress" in name
    inner = LinearRegression() if regressor else LogisticRegression(max_iter=2_000)
    if "estimator" in known and known["estimator"].default is inspect.Parameter.empty:
        params["estimator"] = inner
    if "estimators" in known:
        other = Ridge() if regressor else LogisticRegression(C=0.1, max_iter=2_000)
        params["estimators"] = [("one", inner), ("other", other)]
    if name == "GaussianProcessRegressor":
        from sklearn.gaussian_process.kernels import RBF

        params["kernel"] = RBF(0.02)  # as wide as the data; the default answers every row alike
    if "param_grid" in known:
        params["param_grid"] = {"C": [0.5, 1.0]}
    return kind(**params)


def _data_set(name: str) -> str:
    return "digits" if name in _COUNTS else "wine"


def _data(name: str) -> tuple[NDArray[np.float32], NDArray[Any]]:
    import sklearn.datasets

    rows, truth = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    return rows.astype(np.float32), truth


def _outputs(estimator: Any, rows: NDArray[np.float32]) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return the outputs that the fitted estimator has, as a recipe declares them."""
    if hasattr(estimator, "predict") and _answers_labels(estimator):
        outputs = [_output("label", "int64", ["batch"], "labels")]
        for method, role in (("predict_proba", "probabilities"), ("decision_function", "logits")):
            if hasattr(estimator, method):
                width = _shape(getattr(estimator, method)(rows))
                return [*outputs, _output("scores", "float32", width, role)]
        return outputs
    method = "predict" if hasattr(estimator, "predict") else "transform"
    return [_output("values", "float32", _shape(getattr(estimator, method)(rows)), "values")]


def _answers_labels(estimator: Any) -> bool:  # noqa: ANN401
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector

    kinds = (is_classifier, is_clusterer, is_outlier_detector)
    mixture = type(estimator).__name__.endswith("Mixture")
    return mixture or any(each(estimator) for each in kinds)


def _shape(answer: Any) -> list[Any]:  # noqa: ANN401
    return ["batch", *(answer.shape[1:] or (1,))]


def _output(name: str, dtype: str, shape: list[Any], role: str) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, "role": role}


def _recipe(
    name: str,
    file: Path,
    rows: NDArray[np.float32],
    real: NDArray[np.float32],
    outputs: list[dict[str, Any]],
) -> Recipe:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    low, high = float(rows.min()), float(rows.max())
    return Recipe.model_validate(
        {
            "name": f"{name.lower()}",
            "description": name,
            "licence": "none",
            "source": {
                "kind": "sklearn-pickle",
                "downloads": [{"uri": f"file://{file}", "sha256": digest}],
                "trusted": True,
            },
            "signature": {
                "inputs": [
                    {
                        "name": "x",
                        "dtype": "float32",
                        "shape": ["batch", rows.shape[1]],
                        "domain": {"kind": "range", "low": low, "high": high},
                    }
                ],
                "outputs": outputs,
            },
            "parity": {
                "profile": "trees",
                "real": {"kind": "rows", "values": {"x": real.tolist()}},
            },
        }
    )
