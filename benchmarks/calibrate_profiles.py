"""The numbers behind the tolerances: how far sound conversions stray, and float32 itself.

Run ``python -m benchmarks.calibrate_profiles [NAMES]``. Each model is acquired, exported to all
its targets and compared as a release is, but nothing is published. It prints a table: for each
model and runtime the largest error over the row's largest (of any output and probe), the source's
own against float64, and the largest ratios of the two, which are what ``BOUND_MAX`` and
``BOUND_RMS`` of ``tasks.domain.noise`` bound. Nothing is downloaded: the models are those of the
catalogue that are trained or have seeded weights, and small graphs with seeded weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.catalogue import load_catalogue
from tasks.converters import ConvertRequest, convert_function, converters_for
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ReleaseError
from tasks.domain.recipe import Pictures, Recipe
from tasks.isolation import Call, Children, Family
from tasks.runners import FAMILIES
from tasks.sources import HELD_OUT, SOURCES, AcquireRequest
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.compare import CompareRequest, compare
from tasks.steps.float64 import Float64Request, answer_in_float64
from tasks.steps.probes import ProbesRequest, make_probes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.domain.parity import ParityReport
    from tasks.domain.release import ProbeInfo

CATALOGUE = Path(__file__).parents[1] / "models"
_COLUMNS = ("profile", "model", "runtime", "error", "own error", "max ratio", "RMS ratio", "budget")


class Source(NamedTuple):
    """A source that answered."""

    model: Path
    probes: tuple[ProbeInfo, ...]
    inputs: Path
    answers: Path
    float64: Path
    words: str


def picture_model(
    name: str, kind: str, model: str, size: int, *, profile: str = "float32-conv"
) -> Recipe:
    """Return the recipe of a picture classifier with seeded weights."""
    keras, attention = kind == "keras-applications", profile == "float32-transformer"
    shape = ["batch", size, size, 3] if keras else ["batch", 3, size, size]
    domain = {"kind": "range", "low": -2, "high": 2}
    role = "probabilities" if keras else "logits"
    image = {"name": "image", "dtype": "float32", "shape": shape, "domain": domain}
    image["layout"] = "NHWC" if keras else "NCHW"
    scores = {"name": "scores", "dtype": "float32", "shape": ["batch", 1000], "role": role}
    return Recipe.model_validate(
        {
            "name": name,
            "description": "Seeded weights.",
            "licence": "none",
            "source": {"kind": kind, "model": model},
            "signature": {"inputs": [image], "outputs": [scores]},
            # onnx-tf writes no attention, and torch exports it from opset 18 on
            "targets": ["onnx"] if attention else ["onnx", "saved_model"],
            "opset": 18 if attention else 17,
            "parity": {"profile": profile},
        }
    )


def table_model(name: str, dataset: str, width: int, *steps: str, trees: int = 0) -> Recipe:
    """Return the recipe of a scikit-learn classifier, trained on a data set that it ships with."""
    domain = {"kind": "range", "low": 0, "high": 16}
    rows = {"name": "rows", "dtype": "float32", "shape": ["batch", width], "domain": domain}
    classes = {"iris": 3, "wine": 3, "breast_cancer": 2, "digits": 10}[dataset]
    chain: list[dict[str, Any]] = [{"estimator": each} for each in steps]
    if trees:
        chain[-1]["params"] = {"n_estimators": trees}
    return Recipe.model_validate(
        {
            "name": name,
            "description": "Trained.",
            "licence": "none",
            "source": {"kind": "train-sklearn", "dataset": dataset, "steps": chain},
            "signature": {
                "inputs": [rows],
                "outputs": [
                    {"name": "label", "dtype": "int64", "shape": ["batch"], "role": "labels"},
                    {
                        "name": "probabilities",
                        "dtype": "float32",
                        "shape": ["batch", classes],
                        "role": "probabilities",
                    },
                ],
            },
            "targets": ["onnx", "saved_model"],
            "parity": {"profile": "trees", "real": {"kind": "held-out"}},
        }
    )


def small_models() -> Iterator[Recipe]:
    """Yield graphs of many kinds, small enough to be run in seconds."""
    for model in ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5"):
        yield picture_model(model.replace("_", "-"), "torchvision", model, 64)
    for model in ("efficientnet_b0", "densenet121", "regnet_y_400mf", "convnext_tiny", "googlenet"):
        yield picture_model(model.replace("_", "-"), "torchvision", model, 64)
    for model, size in (("vit_b_32", 224), ("swin_t", 64)):
        name = model.replace("_", "-")
        yield picture_model(name, "torchvision", model, size, profile="float32-transformer")
    for model in ("MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "DenseNet121"):
        yield picture_model(f"keras-{model.lower()}", "keras-applications", model, 64)
    yield table_model("iris-boosting", "iris", 4, "sklearn.ensemble.GradientBoostingClassifier")
    yield table_model(
        "digits-hist", "digits", 64, "sklearn.ensemble.HistGradientBoostingClassifier"
    )
    forest = "sklearn.ensemble.RandomForestClassifier"
    yield table_model("digits-forest", "digits", 64, forest, trees=500)
    scaler = "sklearn.preprocessing.StandardScaler"
    yield table_model("wine-mlp", "wine", 13, scaler, "sklearn.neural_network.MLPClassifier")
    yield table_model("digits-knn", "digits", 64, "sklearn.neighbors.KNeighborsClassifier")
    yield table_model("cancer-bayes", "breast_cancer", 30, "sklearn.naive_bayes.GaussianNB")


def calibrate(children: Children, recipe: Recipe, folder: Path) -> Iterator[ParityReport]:
    """Yield the report on each target, made by the first converter that can."""
    source = _answered(children, recipe, folder)
    model, format_ = source.model, recipe.source_format
    for target in recipe.targets:
        model = _converted(children, recipe, format_, target, model, folder)
        format_ = ModelFormat(target)
        answers = _new(folder, f"answers-{target}")
        reply = children.call(
            answer,
            AnswerRequest(
                recipe=recipe,
                format=format_,
                model=model,
                probes=source.inputs,
                names=tuple(each.name for each in source.probes),
                device="cpu",
                folder=answers,
            ),
            _call(recipe, FAMILIES[format_]),
        ).value
        request = CompareRequest(
            recipe=recipe,
            candidate=format_,
            runtime=reply.runtime,
            probes=source.probes,
            reference=source.answers,
            answers=answers,
            float64=source.float64,
            float64_words=source.words,
        )
        yield children.call(compare, request, _call(recipe, Family.LIGHT)).value


def _answered(children: Children, recipe: Recipe, folder: Path) -> Source:
    model, kind = _new(folder, "source"), SOURCES[recipe.source.kind]
    request = AcquireRequest(recipe=recipe, downloads=(), folder=model)
    children.call(kind.acquire, request, _call(recipe, kind.family))
    inputs, held_out = _new(folder, "inputs"), model / HELD_OUT
    made = ProbesRequest(
        recipe=recipe,
        pictures=(),
        held_out=held_out if held_out.is_file() else None,
        folder=inputs,
    )
    probes = children.call(make_probes, made, _call(recipe, Family.LIGHT)).value.probes
    names, family = tuple(each.name for each in probes), FAMILIES[recipe.source_format]
    answers, wide = _new(folder, "reference"), _new(folder, "float64")
    asked = AnswerRequest(
        recipe=recipe,
        format=recipe.source_format,
        model=model,
        probes=inputs,
        names=names,
        device="cpu",
        folder=answers,
    )
    children.call(answer, asked, _call(recipe, family))
    wider = Float64Request(recipe=recipe, model=model, probes=inputs, names=names, folder=wide)
    words = children.call(answer_in_float64, wider, _call(recipe, family)).value.words
    return Source(model, probes, inputs, answers, wide, words)


def _converted(
    children: Children,
    recipe: Recipe,
    takes: ModelFormat,
    makes: ModelFormat,
    model: Path,
    folder: Path,
) -> Path:
    errors = []
    for converter in converters_for(recipe, takes, makes):
        if refusal := converter.refusal(recipe):
            errors.append(refusal)
            continue
        made = _new(folder, f"{makes}-{converter.name}")
        request = ConvertRequest(recipe=recipe, source=model, folder=made)
        try:
            children.call(
                convert_function(converter.name), request, _call(recipe, converter.family)
            )
        except ReleaseError as error:
            errors.append(str(error))
            continue
        return made
    raise SystemExit(f"{recipe.name}: no converter to {makes}: {'; '.join(errors)}")


def _call(recipe: Recipe, family: Family) -> Call:
    return Call("calibration", recipe.name, family, recipe.limits)


def _new(folder: Path, name: str) -> Path:
    new = folder / name
    new.mkdir()
    return new


def row_of(recipe: Recipe, report: ParityReport) -> str:
    """Return the line of the table for one report."""
    outputs = [each for probe in report.probes for each in probe.outputs]
    noises = [each.noise for each in outputs if each.noise]
    figures = ["-"] * 4
    if noises:
        figures = [
            f"{max(each.error_max for each in noises):.1e}",
            f"{max(each.own_max for each in noises):.1e}",
            f"{max(each.ratio_max for each in noises):.2f}",
            f"{max(each.ratio_rms for each in noises):.2f}",
        ]
    verdict = f"{report.budget:.0%}" if report.passed else f"FAILS: {report.reasons()[0]}"
    runtime = " ".join(report.runtime.split()[:2])
    about = "" if noises else f" ({report.noise})"
    cells = (recipe.parity.profile, recipe.name, runtime, *figures, verdict + about)
    return f"| {' | '.join(cells)} |"


def _without_pictures(recipe: Recipe) -> Recipe:
    if not isinstance(recipe.parity.real, Pictures):
        return recipe
    return recipe.model_copy(update={"parity": recipe.parity.model_copy(update={"real": None})})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate_profiles")
    parser.add_argument("names", nargs="*", help="models to run; all of them if none is named")
    chosen = parser.parse_args().names
    catalogue = [
        _without_pictures(each)
        for each in load_catalogue(CATALOGUE)
        if each.seeded or each.source.kind.startswith("train-")
    ]
    recipes = [each for each in (*catalogue, *small_models()) if not chosen or each.name in chosen]
    sys.stdout.write(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}\n")
    for recipe in recipes:
        with tempfile.TemporaryDirectory() as place, Children(Path(place)) as children:
            try:
                for report in calibrate(children, recipe, _new(Path(place), "work")):
                    sys.stdout.write(f"{row_of(recipe, report)}\n")
                    sys.stdout.flush()
            except (ReleaseError, SystemExit) as error:
                warnings.warn(f"{recipe.name}: {str(error)[:300]}", stacklevel=1)


if __name__ == "__main__":
    main()
