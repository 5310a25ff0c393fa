"""Good models raise no alarm: a few of each kind; ``benchmarks/families.py`` tries them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.estimators import fitted_estimators
from benchmarks.families import markdown, picture_recipe
from benchmarks.trial import Bench, Trial

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.isolation import Children

ESTIMATORS = (
    "DecisionTreeRegressor", "ExtraTreesClassifier", "GaussianNB",
    "GradientBoostingRegressor", "KNeighborsRegressor", "LinearRegression",
    "LogisticRegression", "MLPClassifier", "PCA", "SVC", "StandardScaler", "VotingRegressor",
)  # fmt: skip


@pytest.fixture
def bench(children: Children, tmp_path: Path) -> Bench:
    return Bench(children, tmp_path)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_sound_estimator_raises_no_alarm(name: str, bench: Bench, tmp_path: Path) -> None:
    (fitted,) = fitted_estimators(tmp_path, frozenset({name}))
    assert fitted.recipe is not None, fitted.why_not

    trial = bench.run(fitted.recipe, (fitted.file,))

    assert trial.verdict == "equal", trial.words
    assert trial.rows > 32


def test_a_sound_network_raises_no_alarm(bench: Bench) -> None:
    recipe = picture_recipe({"kind": "torchvision", "model": "squeezenet1_1"}, "NCHW", 64)

    trial = bench.run(recipe)

    assert trial.verdict == "equal", trial.words
    assert trial.ratio_rms is not None
    assert trial.ratio_rms < 6


def test_a_network_that_answers_wrongly_raises_one(bench: Bench, tmp_path: Path) -> None:
    (fitted,) = fitted_estimators(tmp_path, frozenset({"NuSVC"}))
    assert fitted.recipe is not None

    trial = bench.run(fitted.recipe, (fitted.file,))

    assert trial.verdict == "differs"
    assert "scores" in trial.words


def test_splits_that_were_rounded_to_float32_are_caught(bench: Bench, tmp_path: Path) -> None:
    """HistGradientBoosting splits in float64, and skl2onnx rounds its thresholds to the nearest."""
    (fitted,) = fitted_estimators(tmp_path, frozenset({"HistGradientBoostingRegressor"}))
    assert fitted.recipe is not None

    trial = bench.run(fitted.recipe, (fitted.file,))

    assert trial.verdict == "differs"
    assert "beside-splits/values" in trial.words


def test_the_table_counts_what_was_tried(tmp_path: Path) -> None:
    for name, verdict in (("a", "equal"), ("b", "differs"), ("c", "not tried")):
        trial = Trial.model_validate({"model": name, "verdict": verdict, "words": f"it {verdict}"})
        (tmp_path / f"{name}.json").write_text(trial.model_dump_json())

    table = markdown(tmp_path)

    assert table.startswith("1 of 2 models are equal.")
    assert "| b |  | differs | 0 |" in table
    assert table.endswith("- c: it not tried\n")
