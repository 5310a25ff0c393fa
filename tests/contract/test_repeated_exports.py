"""An export in a fresh process makes the same model again; where it does not, a part is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.catalogue import load_recipe
from tasks.converters import ConvertRequest, convert_function
from tasks.domain.reproducibility import difference
from tasks.isolation import Call, Children, Family
from tasks.sources import SOURCES, AcquireRequest
from tasks.steps.canonical import FingerprintRequest, fingerprint
from tests.contract.test_keras_converters import recipe_of
from tests.support import keras_nets
from tests.support.keras_nets import NetRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.domain.recipe import Recipe
    from tasks.domain.reproducibility import Fingerprint


def _recipe(name: str, **source: Any) -> Recipe:
    recipe = load_recipe(name, Path("models"))
    fields = recipe.model_dump(mode="json")
    return type(recipe).model_validate(fields | {"source": fields["source"] | source})


def _train(children: Children, recipe: Recipe, folder: Path) -> Path:
    folder.mkdir()
    kind = SOURCES[recipe.source.kind]
    request = AcquireRequest(recipe=recipe, downloads=(), folder=folder)
    children.call(kind.acquire, request, Call("acquire", recipe.name, kind.family))
    return folder


def _export(
    children: Children, converter: str, family: Family, recipe: Recipe, source: Path, folder: Path
) -> Path:
    """Convert in a process of its own."""
    folder.mkdir()
    children.retire(family)
    request = ConvertRequest(recipe=recipe, source=source, folder=folder)
    children.call(
        convert_function(converter), request, Call(f"export ({converter})", recipe.name, family)
    )
    return folder


def _print(folder: Path) -> Fingerprint:
    return fingerprint(FingerprintRequest(model=folder))


def _twice(export: Callable[[Path], Path], folder: Path) -> tuple[Fingerprint, Fingerprint]:
    return _print(export(folder / "first")), _print(export(folder / "second"))


def test_a_forest_by_skl2onnx_repeats(children: Children, tmp_path: Path) -> None:
    recipe = _recipe("iris-random-forest")
    source = _train(children, recipe, tmp_path / "source")

    first, second = _twice(
        lambda to: _export(children, "skl2onnx", Family.SKLEARN, recipe, source, to), tmp_path
    )

    assert first == second
    assert first.weights


@pytest.mark.parametrize("converter", ["torch-dynamo", "torch-torchscript"])
def test_a_network_by_either_torch_exporter_repeats(
    children: Children, tmp_path: Path, converter: str
) -> None:
    recipe = _recipe("digits-cnn", epochs=1, minimum_accuracy=0.1)
    source = _train(children, recipe, tmp_path / "source")

    first, second = _twice(
        lambda to: _export(children, converter, Family.TORCH, recipe, source, to), tmp_path
    )

    assert first == second
    assert len(first.weights) >= 6


def test_a_keras_network_by_tf2onnx_repeats(children: Children, tmp_path: Path) -> None:
    recipe = recipe_of("cnn")
    source = tmp_path / "source"
    source.mkdir()
    children.call(
        keras_nets.build_net,
        NetRequest(net="cnn", seed=0, folder=source),
        Call("build", "cnn", Family.TENSORFLOW),
    )

    first, second = _twice(
        lambda to: _export(children, "tf2onnx-keras", Family.TENSORFLOW, recipe, source, to),
        tmp_path,
    )

    assert first.canonical == second.canonical


def test_a_training_that_does_not_repeat_is_told_by_its_weights(
    children: Children, tmp_path: Path
) -> None:
    prints = []
    for seed in (0, 1):
        recipe = _recipe("digits-cnn", epochs=1, minimum_accuracy=0.1, seed=seed)
        source = _train(children, recipe, tmp_path / f"source{seed}")
        folder = tmp_path / f"onnx{seed}"
        prints.append(
            _print(_export(children, "torch-torchscript", Family.TORCH, recipe, source, folder))
        )

    words = difference(*prints)

    assert words[0].startswith("weights differ: ")
    assert f" of {len(prints[1].weights)}, first " in words[0]
    assert words[1] == "alike: opsets, signature, graph"


def test_two_exporters_of_one_network_are_told_by_their_graphs(
    children: Children, tmp_path: Path
) -> None:
    recipe = _recipe("digits-cnn", epochs=1, minimum_accuracy=0.1)
    source = _train(children, recipe, tmp_path / "source")
    prints = [
        _print(_export(children, name, Family.TORCH, recipe, source, tmp_path / name))
        for name in ("torch-dynamo", "torch-torchscript")
    ]

    words = difference(*prints)

    assert any(each.startswith("graph differs: ") for each in words)
    assert "signature" in words[-1]
