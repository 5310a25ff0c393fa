"""The sound models: built and exported by our own converters, in child processes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.converters import ConvertRequest, convert_function
from tasks.domain.artifact import ModelFormat
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.runners import FAMILIES
from tasks.sources import HELD_OUT, SOURCES, AcquireRequest
from tasks.steps.answer import AnswerRequest, answer
from tasks.steps.float64 import Float64Request, answer_in_float64
from tasks.steps.probes import ProbesRequest, make_probes
from tasks.steps.simplify import SimplifyRequest, simplify
from tasks.steps.split_rows import SplitRowsRequest, make_split_rows
from tests.corpus.nets import CLASSES, NetRequest, build_torch

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.release import ProbeInfo

RAW, OPTIMISED, SIMPLIFIED = "raw", "optimised", "simplified"
"""The folders of the three files that each export leaves."""


def _recipe(name: str, source: dict[str, Any], inputs: list[Any], *outputs: Any) -> Recipe:
    trees = source["kind"] == "train-sklearn"
    profiles = {"picture": "float32-conv", "text": "float32-transformer"}
    return Recipe.model_validate(
        {
            "name": name,
            "description": "A small model.",
            "licence": "none",
            "source": source,
            "signature": {
                "inputs": inputs,
                "outputs": [
                    dict(zip(("name", "dtype", "shape", "role"), each, strict=True))
                    for each in outputs
                ],
            },
            "opset": 20 if not trees else 17,
            "parity": {
                "profile": profiles.get(name, "trees"),
                "real": {"kind": "held-out", "at_most": 75} if trees else None,
            },
        }
    )


def _input(name: str, dtype: str, shape: list[int], **fields: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": ["batch", *shape], **fields}


_PROGRAM = {
    "kind": "torch-program",
    "download": {"uri": "file:///program.pt2", "sha256": "0" * 64},
}
_LABEL = ("label", "int64", ["batch"], "labels")
_SCALER = {"estimator": "sklearn.preprocessing.StandardScaler"}
_FOREST = {
    "estimator": "sklearn.ensemble.RandomForestClassifier",
    "params": {"n_estimators": 9},
}
_RANGE = {"kind": "range", "low": -2, "high": 2.5}


def _table(name: str, data: str, columns: int, *steps: dict[str, Any], **more: Any) -> Recipe:
    source = {"kind": "train-sklearn", "dataset": data, "steps": steps, **more}
    values = {"kind": "range", "low": 0.0, "high": 8.0}
    return _recipe(
        name,
        source,
        [_input("x", "float32", [columns], domain=values)],
        _LABEL,
        ("probabilities", "float32", ["batch", 3], "probabilities"),
    )


RECIPES = {
    "picture": _recipe(
        "picture",
        _PROGRAM,
        [_input("image", "float32", [3, 20, 28], layout="NCHW", domain=_RANGE)],
        ("logits", "float32", ["batch", CLASSES], "logits"),
        ("probabilities", "float32", ["batch", CLASSES], "probabilities"),
        _LABEL,
        ("coarse", "int64", ["batch"], "values"),
    ),
    "text": _recipe(
        "text",
        _PROGRAM,
        [_input("tokens", "int64", [9], domain={"kind": "tokens", "vocabulary": 40})],
        ("logits", "float32", ["batch", CLASSES], "logits"),
        ("state", "float32", ["batch", 12], "values"),
    ),
    "forest": _table("forest", "iris", 4, _SCALER, _FOREST, seed=3, test_fraction=0.5),
    "trees": _table("trees", "iris", 4, _FOREST),
    "logistic": _table(
        "logistic", "wine", 13, _SCALER, {"estimator": "sklearn.linear_model.LogisticRegression"}
    ),
}
"""By name; the picture is not square, so that a transposed one shows."""


@dataclass
class Good:
    """A source model, the files of its export, the probes, and its own answers."""

    recipe: Recipe
    folder: Path
    children: Children
    probes: tuple[ProbeInfo, ...] = ()
    float64_words: str = ""

    @property
    def source(self) -> Path:
        """The source model's folder."""
        return self.folder / "source"

    @property
    def inputs(self) -> Path:
        """Folder of the probes."""
        return self.folder / "inputs"

    @property
    def reference(self) -> Path:
        """Folder of the source's answers."""
        return self.folder / "reference"

    @property
    def float64(self) -> Path:
        """Folder of the source's answers in float64."""
        return self.folder / "float64"


def make_good(name: str, children: Children, folder: Path) -> Good:
    """Build one model, export it, and let the source answer its probes."""
    recipe = RECIPES[name]
    for each in ("source", "inputs", "reference", "float64", RAW, OPTIMISED):
        (folder / each).mkdir(parents=True)
    good = Good(recipe, folder, children)
    call = Call("corpus", name, FAMILIES[recipe.source_format])
    _build(good, call)
    _export(good, call)
    _ask(good, call)
    return good


def _build(good: Good, call: Call) -> None:
    recipe = good.recipe
    if recipe.source_format is ModelFormat.TORCH:
        net = NetRequest(net=recipe.name, recipe=recipe, folder=good.source)
        good.children.call(build_torch, net, call)
        return
    request = AcquireRequest(recipe=recipe, downloads=(), folder=good.source)
    good.children.call(SOURCES[recipe.source.kind].acquire, request, call)


def _export(good: Good, call: Call) -> None:
    torch = good.recipe.source_format is ModelFormat.TORCH
    convert = convert_function("torch-dynamo" if torch else "skl2onnx")
    for name, passes in ((RAW, ()), (OPTIMISED, None)):
        request = ConvertRequest(
            recipe=good.recipe, source=good.source, folder=good.folder / name, passes=passes
        )
        good.children.call(convert, request, call)
    shutil.copytree(good.folder / OPTIMISED, good.folder / SIMPLIFIED)
    simplifying = SimplifyRequest(
        folder=good.folder / SIMPLIFIED,
        passes=("fold-constants", "eliminate-identity", "remove-unused"),
    )
    elsewhere = Call("corpus", good.recipe.name, Family.ONNXRUNTIME)
    good.children.call(simplify, simplifying, elsewhere)


def _ask(good: Good, call: Call) -> None:
    recipe = good.recipe
    held_out = good.source / HELD_OUT
    made = ProbesRequest(
        recipe=recipe,
        pictures=(),
        held_out=held_out if held_out.is_file() else None,
        folder=good.inputs,
    )
    good.probes = make_probes(made).probes
    names = tuple(each.name for each in good.probes)
    if recipe.source_format is ModelFormat.SKLEARN:
        beside = SplitRowsRequest(
            recipe=recipe, model=good.source, probes=good.inputs, names=names[:2]
        )
        if probe := good.children.call(make_split_rows, beside, call).value.probe:
            good.probes += (probe,)
            names += (probe.name,)
    asked = AnswerRequest(
        recipe=recipe, format=recipe.source_format, model=good.source, probes=good.inputs,
        names=names, device="cpu", folder=good.reference,
    )  # fmt: skip
    good.children.call(answer, asked, call)
    wide = Float64Request(
        recipe=recipe, model=good.source, probes=good.inputs, names=names, folder=good.float64
    )
    good.float64_words = good.children.call(answer_in_float64, wide, call).value.words
