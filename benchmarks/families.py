"""Do good models pass? Every family of torchvision and Keras, every estimator of skl2onnx.

Run ``python -m benchmarks.families --keep FOLDER``: it takes hours for all of it, writes a line
for each model into the folder, and goes on where it was stopped. ``--markdown`` prints what is
known as the table of ``docs/parity/families.md``. Weights are random, by a seed, with random
statistics of BatchNorm; the estimators are fitted on the wine and diabetes data.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.estimators import fitted_estimators
from benchmarks.trial import Bench, Trial
from tasks.domain.recipe import Recipe
from tasks.isolation import Children

if TYPE_CHECKING:
    from collections.abc import Iterator

TORCHVISION = {
    "alexnet": 96, "convnext_tiny": 96, "densenet121": 96, "efficientnet_b0": 96,
    "efficientnet_v2_s": 96, "googlenet": 96, "inception_v3": 299, "maxvit_t": 224,
    "mnasnet0_5": 96, "mobilenet_v2": 96, "mobilenet_v3_small": 96, "regnet_x_400mf": 96,
    "regnet_y_400mf": 96, "resnet18": 96, "resnet50": 96, "resnext50_32x4d": 96,
    "shufflenet_v2_x0_5": 96, "squeezenet1_1": 96, "swin_t": 128, "swin_v2_t": 128, "vgg11": 96,
    "vgg11_bn": 96, "vit_b_16": 224, "wide_resnet50_2": 96,
}  # fmt: skip
"""The smallest of each classification family, and the side of its pictures in pixels."""

KERAS = {
    "ConvNeXtTiny": 96, "DenseNet121": 96, "EfficientNetB0": 96, "EfficientNetV2B0": 96,
    "InceptionResNetV2": 96, "InceptionV3": 96, "MobileNet": 96, "MobileNetV2": 96,
    "MobileNetV3Small": 96, "NASNetMobile": 96, "ResNet50": 96, "ResNet50V2": 96, "VGG16": 96,
    "Xception": 96,
}  # fmt: skip
"""Likewise of ``keras.applications``."""

_TRANSFORMERS = ("convnext", "swin", "vit", "maxvit", "ConvNeXt")
_CLASSES = 50


def picture_recipe(source: dict[str, Any], layout: str, size: int) -> Recipe:
    """Return the recipe of a classifier of pictures with random weights.

    Pictures are not square where the architecture allows it, since squares hide an exchange
    of height and width.
    """
    model = str(source["model"])
    fixed = model.startswith(("vit", "maxvit"))
    height, width = (size, size) if fixed else (size, size + 32)
    sides = [3, height, width] if layout == "NCHW" else [height, width, 3]
    profile = "float32-transformer" if model.startswith(_TRANSFORMERS) else "float32-conv"
    return Recipe.model_validate(
        {
            "name": model.lower().replace("_", "-"),
            "description": model,
            "licence": "none",
            "source": {"weights": "seeded", "seed": 1} | source,
            "opset": 18,
            "signature": {
                "inputs": [
                    {
                        "name": "pictures",
                        "dtype": "float32",
                        "shape": ["batch", *sides],
                        "layout": layout,
                        "domain": {"kind": "range", "low": -2.0, "high": 2.5},
                    }
                ],
                "outputs": [
                    {
                        "name": "logits",
                        "dtype": "float32",
                        "shape": ["batch", 1000 if layout == "NCHW" else _CLASSES],
                        "role": "logits",
                    }
                ],
            },
            "parity": {"profile": profile},
        }
    )


def pictures() -> Iterator[tuple[str, Recipe]]:
    """Yield a recipe for each family."""
    for model, size in TORCHVISION.items():
        source = {"kind": "torchvision", "model": model}
        yield f"torchvision {model}", picture_recipe(source, "NCHW", size)
    for model, size in KERAS.items():
        source = {"kind": "keras-applications", "model": model, "head": "linear"}
        yield f"keras {model}", picture_recipe(source, "NHWC", size)


def run(keep: Path, only: frozenset[str]) -> None:
    """Try every model of which ``keep`` has no line yet."""
    keep.mkdir(parents=True, exist_ok=True)
    (keep / "estimators").mkdir(exist_ok=True)
    for fitted in fitted_estimators(keep / "estimators", only):
        name = f"sklearn {fitted.name}"
        if fitted.recipe is None:
            _note(keep, name, Trial(model=fitted.name, verdict="not tried", words=fitted.why_not))
        else:
            _try(keep, name, fitted.recipe, (fitted.file,))
    for name, recipe in pictures():
        if not only or name.partition(" ")[2] in only:
            _try(keep, name, recipe)


def _try(keep: Path, name: str, recipe: Recipe, downloads: tuple[Path, ...] = ()) -> None:
    if (keep / f"{name}.json").is_file():
        return
    folder = Path(tempfile.mkdtemp(prefix="families-"))
    try:
        with Children(folder) as children:
            _note(keep, name, Bench(children, folder).run(recipe, downloads))
    finally:
        shutil.rmtree(folder)


def _note(keep: Path, name: str, trial: Trial) -> None:
    (keep / f"{name}.json").write_text(trial.model_dump_json())
    print(f"{name}: {trial.verdict} {trial.words}", flush=True)


def markdown(keep: Path) -> str:
    """Return what is known as one table, and what was not tried as a list."""
    found = {
        path.stem: Trial.model_validate_json(path.read_text())
        for path in sorted(keep.glob("*.json"))
    }
    head = (
        "model", "by", "verdict", "rows", "of tolerance", "largest error ÷ source's own",
        "RMS error ÷ source's own", "export s", "parity s",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [_row(name, each) for name, each in found.items() if each.verdict != "not tried"]
    tried = sum(each.verdict != "not tried" for each in found.values())
    equal = sum(each.verdict == "equal" for each in found.values())
    rest = [f"- {name}: {each.words}" for name, each in found.items()
            if each.verdict == "not tried"]  # fmt: skip
    return "\n".join(
        [f"{equal} of {tried} models are equal.", "", *lines, "", "Not tried:", "", *rest, ""]
    )


def _row(name: str, trial: Trial) -> str:
    ratios = [f"{each:.2f}" if each is not None else "" for each in
              (trial.ratio_max, trial.ratio_rms)]  # fmt: skip
    cells = [
        name, trial.converter, trial.verdict, str(trial.rows), f"{trial.budget or 0:.1%}",
        *ratios, f"{trial.export.seconds:.1f}", f"{trial.parity.seconds:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.families", description=__doc__)
    parser.add_argument("--keep", type=Path, required=True, help="folder of what is known")
    parser.add_argument("--markdown", action="store_true", help="print the table, try nothing")
    parser.add_argument("only", nargs="*", help="names of models or estimators; absent: all")
    options = parser.parse_args()
    if options.markdown:
        print(markdown(options.keep))
    else:
        run(options.keep, frozenset(options.only))
