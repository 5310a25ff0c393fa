"""``serve`` in a recipe: the runtimes that must read the model, and the opset that they allow."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tasks.catalogue import load_recipe, schema_text
from tasks.domain.errors import ConfigurationError
from tasks.domain.recipe import Recipe
from tests.unit.test_catalogue import GOOD, written

ORT = '{kind: onnxruntime, at_least: "1.17"}'


def load(folder: Path, lines: str, good: str = GOOD) -> Recipe:
    written(folder, f"{good}{lines}")
    return load_recipe("tiny", folder)


@pytest.mark.parametrize(
    ("serve", "targets", "opset"),
    [
        pytest.param(f"[{ORT}]", "[onnx]", 20, id="by-onnxruntime"),
        pytest.param(f"[{ORT}, {{kind: onnx, ir_at_most: 8}}]", "[onnx]", 18, id="by-the-ir"),
        pytest.param(
            '[{kind: triton, release: "26.08"}]', "[onnx]", 22, id="by-what-skl2onnx-writes"
        ),
    ],
)
def test_auto_is_the_highest_opset_that_fits(
    tmp_path: Path, serve: str, targets: str, opset: int
) -> None:
    recipe = load(tmp_path, f"targets: {targets}\nserve: {serve}\nopset: auto\n")

    assert recipe.opset == opset
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_auto_keeps_within_what_the_converter_of_the_source_writes() -> None:
    fields = yaml.safe_load(GOOD)
    fields |= {"opset": "auto", "serve": [yaml.safe_load('{kind: triton, release: "26.08"}')]}
    download = {"uri": "file:///m.keras", "sha256": "0" * 64}
    fields["source"] = {"kind": "keras-file", "download": download}

    assert Recipe.model_validate(fields).opset == 18


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param(
            f"opset: 21\nserve: [{ORT}]\n",
            "opset: onnxruntime 1.17 reads opset 20 at most (got 21, which needs onnxruntime >= "
            "1.18). Opset 20 would fit.",
            id="too-high",
        ),
        pytest.param(
            "opset: auto\n",
            "opset: 'auto' needs 'serve', the runtimes that must read it; or name an opset.",
            id="auto-of-nothing",
        ),
        pytest.param("opset: automatic\n", "opset: expected a whole number (got", id="a-word"),
        pytest.param(
            "serve: [{kind: onnxruntime, at_least: 1.17}]\n",
            "serve[0].at_least: expected text (got 1.17). Put it in quotes.",
            id="a-number-for-a-version",
        ),
        pytest.param(
            'serve: [{kind: onnxruntime, at_least: "newest"}]\n',
            "serve[0].at_least: expected a version in quotes such as '1.17' (got 'newest').",
            id="a-word-for-a-version",
        ),
        pytest.param(
            'opset: auto\nserve: [{kind: triton, release: "19.01"}]\n',
            "serve[0]: Triton 19.01 is not known here (expected one of 24.04 to 26.08). For "
            "another one, name its ONNX Runtime: kind 'onnxruntime'.",
            id="an-unknown-triton",
        ),
        pytest.param(
            'serve: [{kind: triton, release: "24.8"}]\n',
            "serve[0].release: expected a container release in quotes such as '24.08' (got",
            id="a-triton-without-its-zero",
        ),
        pytest.param(
            "serve: [{kind: tensorrt}]\n",
            "serve[0].kind: expected one of 'onnxruntime', 'triton', 'onnx' (got 'tensorrt').",
            id="an-unknown-kind",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_line(tmp_path: Path, lines: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, lines)

    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("opset", [17, "auto"])
def test_editors_accept_a_number_and_auto(opset: object) -> None:
    fields = yaml.safe_load(GOOD) | {"opset": opset, "serve": [yaml.safe_load(ORT)]}

    jsonschema.validate(fields, json.loads(schema_text()))


def test_editors_refuse_other_words() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(GOOD) | {"opset": "highest"}, json.loads(schema_text()))
