"""Recipes: the good ones load, and a bad one is told line by line, as its author reads it."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tasks.catalogue import (
    SCHEMA_FILE,
    _compose,
    _Loader,
    load_catalogue,
    load_recipe,
    main,
    recipe_names,
    schema_text,
)
from tasks.domain.errors import ConfigurationError
from tasks.faults import PATTERNS

MODELS = Path(__file__).parents[2] / "models"
GOOD = """\
name: tiny
description: A small forest.
licence: MIT
source:
  kind: train-sklearn
  dataset: iris
  steps:
    - estimator: sklearn.ensemble.RandomForestClassifier
      params: {n_estimators: 10}
signature:
  inputs:
    - name: x
      dtype: float32
      shape: [batch, 4]
      domain: {kind: range, low: 0, high: 8}
  outputs:
    - {name: label, dtype: int64, shape: [batch], role: labels}
"""
DTYPES = (
    "'float16', 'float32', 'float64', 'int8', 'int16', 'int32', 'int64', "
    "'uint8', 'uint16', 'uint32', 'uint64', 'bool', 'string'"
)
WAIVER = (
    "licence: MIT\nwaivers:\n"
    "  - {output: label, kinds: [labels], reason: a known fault, owner: mara, expires: 2099-12-31}"
)
DIGEST = "0" * 64
MD5 = "0" * 32
NO_MD5_HERE = (
    "'md5' is for the weights of 'keras-applications' alone, whose publisher gives no SHA-256; "
    "pin this by 'sha256'."
)


def written(folder: Path, text: str, name: str = "tiny") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def complaint(folder: Path, text: str) -> str:
    """Return the whole message about a bad file, without the folder's name."""
    written(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        load_recipe("tiny", folder)
    return str(caught.value).replace(f"{folder}/", "")


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


# --- what the repository ships ------------------------------------------------------------------


def test_the_schema_beside_the_recipes_is_fresh() -> None:
    kept = (MODELS / SCHEMA_FILE).read_text("utf-8")

    assert kept == schema_text(), "run: python -m tasks.catalogue schema"


@pytest.mark.parametrize("name", recipe_names(MODELS))
def test_a_shipped_recipe_loads_and_fits_the_schema(name: str) -> None:
    text = (MODELS / f"{name}.yaml").read_text("utf-8")
    schema = json.loads(schema_text())

    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))

    assert load_recipe(name, MODELS).name == name
    assert text.startswith(f"# yaml-language-server: $schema={SCHEMA_FILE}\n")


def test_the_catalogue_comes_in_the_order_of_names() -> None:
    names = [recipe.name for recipe in load_catalogue(MODELS)]

    assert names == sorted(names)
    assert len(names) >= 8


def test_every_pattern_of_the_schema_has_words() -> None:
    found = set()

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            found.update([node["pattern"]] if isinstance(node.get("pattern"), str) else [])
            node = list(node.values())
        if isinstance(node, list):
            for each in node:
                visit(each)

    visit(json.loads(schema_text()))

    assert found == set(PATTERNS)


# --- one fault, the whole message ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "licence: MIT",
            "licence: MIT\nopsett: 17",
            "tiny.yaml:4: opsett: unknown field (got 17). Did you mean 'opset'? Fields here: name, "
            "description, tags, licence, source, signature, preprocessing, labels, targets, serve, "
            "opset, converters, simplify, parity, waivers, variants, device, limits.",
            id="unknown-field",
        ),
        pytest.param(
            "      params: {n",
            "      parms: {n",
            'tiny.yaml:9: source.steps[0].parms: unknown field (got {"n_estimators": 10}). '
            "Did you mean 'params'? Fields here: estimator, params.",
            id="unknown-nested-field",
        ),
        pytest.param(
            "licence: MIT",
            WAIVER.replace("owner: mara, ", ""),
            "tiny.yaml:5: waivers[0].owner: missing (expected text).",
            id="waiver-without-an-owner",
        ),
        pytest.param(
            "licence: MIT",
            WAIVER.replace("2099-12-31", "soon"),
            "tiny.yaml:5: waivers[0].expires: expected a valid date in the format YYYY-MM-DD, "
            "input is too short (got 'soon').",
            id="waiver-without-a-day",
        ),
        pytest.param(
            "licence: MIT",
            WAIVER.replace("[labels]", "[non-finite]"),
            "tiny.yaml:5: waivers[0].kinds[0]: expected one of 'numbers', 'ranks', 'labels', "
            "'task-metric' (got 'non-finite').",
            id="waiver-of-what-none-covers",
        ),
        pytest.param(
            "licence: MIT",
            WAIVER.replace("output: label", "output: labels"),
            "tiny.yaml:1: waivers[0].output: names no output (expected one of label, got "
            "'labels').",
            id="waiver-of-no-output",
        ),
        pytest.param(
            "licence: MIT\n", "", "tiny.yaml:1: licence: missing (expected text).", id="missing"
        ),
        pytest.param(
            "  dataset: iris\n",
            "",
            "tiny.yaml:4: source.dataset: missing (expected one of 'iris', 'wine', "
            "'breast_cancer', 'digits', 'diabetes').",
            id="missing-choice",
        ),
        pytest.param(
            "dataset: iris",
            "dataset: irs",
            "tiny.yaml:6: source.dataset: expected one of 'iris', 'wine', 'breast_cancer', "
            "'digits', 'diabetes' (got 'irs'). Did you mean 'iris'?",
            id="literal",
        ),
        pytest.param(
            "dtype: float32",
            "dtype: float",
            f"tiny.yaml:13: signature.inputs[0].dtype: expected one of {DTYPES} (got 'float'). "
            "Did you mean 'float64'?",
            id="dtype",
        ),
        pytest.param(
            "kind: train-sklearn",
            "kind: sklearn",
            "tiny.yaml:5: source.kind: expected one of 'train-sklearn', 'train-torch', "
            "'torchvision', 'keras-applications', 'torch-program', 'keras-file', 'saved-model', "
            "'sklearn-pickle' (got 'sklearn'). Did you mean 'train-sklearn'?",
            id="discriminator",
        ),
        pytest.param(
            "{kind: range, low",
            "{low",
            "tiny.yaml:15: signature.inputs[0].domain.kind: missing (expected one of 'choice', "
            "'image', 'mask', 'one-hot', 'range', 'tokens').",
            id="no-discriminator",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\nconverters: {onx: [skl2onnx]}",
            "tiny.yaml:4: converters.onx: expected one of 'sklearn', 'torch', 'keras', "
            "'saved_model', 'onnx' (got 'onx'). Did you mean 'onnx'?",
            id="enum-key",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\ntargets: [onnx, savedmodel]",
            "tiny.yaml:4: targets[1]: expected one of 'onnx', 'saved_model' (got 'savedmodel'). "
            "Did you mean 'saved_model'?",
            id="enum-member",
        ),
        pytest.param(
            "licence: MIT",
            "licence: 3",
            "tiny.yaml:3: licence: expected text (got 3). Put it in quotes.",
            id="number-for-text",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\nopset: '17'",
            "tiny.yaml:4: opset: expected a whole number (got '17'). Write it without quotes.",
            id="text-for-number",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\nopset: 17.5",
            "tiny.yaml:4: opset: expected a whole number (got 17.5).",
            id="fraction-for-whole-number",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\nopset: true",
            "tiny.yaml:4: opset: expected a whole number (got true).",
            id="truth-for-number",
        ),
        pytest.param(
            "licence: MIT",
            "licence:",
            "tiny.yaml:3: licence: expected text (got nothing).",
            id="nothing-for-text",
        ),
        pytest.param(
            "shape: [batch, 4]",
            "shape: batch",
            "tiny.yaml:14: signature.inputs[0].shape: expected a list (got 'batch'). "
            "Write [batch].",
            id="text-for-list",
        ),
        pytest.param(
            "{name: label, dtype: int64, shape: [batch], role: labels}",
            "label",
            "tiny.yaml:17: signature.outputs[0]: expected fields, as 'key: value' lines "
            "(got 'label').",
            id="text-for-fields",
        ),
        pytest.param(
            "params: {n_estimators: 10}",
            "params: 10",
            "tiny.yaml:9: source.steps[0].params: expected fields, as 'key: value' lines (got 10).",
            id="number-for-fields",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\nopset: 99",
            "tiny.yaml:4: opset: expected a number of at most 26 (got 99).",
            id="too-large",
        ),
        pytest.param(
            "dataset: iris",
            "dataset: iris\n  test_fraction: 1",
            "tiny.yaml:7: source.test_fraction: expected a number below 1 (got 1).",
            id="out-of-range",
        ),
        pytest.param(
            "shape: [batch, 4]",
            "shape: [batch, 0]",
            "tiny.yaml:14: signature.inputs[0].shape[1]: expected a number above 0 or text "
            "(got 0).",
            id="union-of-number-and-text",
        ),
        pytest.param(
            "shape: [batch, 4]",
            "shape: [batch, Width]",
            "tiny.yaml:14: signature.inputs[0].shape[1]: expected a whole number or an axis name "
            "in lower case such as 'batch' (got 'Width').",
            id="pattern-in-a-union",
        ),
        pytest.param(
            "estimator: sklearn.ensemble.RandomForestClassifier",
            "estimator: RandomForestClassifier",
            "tiny.yaml:8: source.steps[0].estimator: expected an import path such as "
            "'sklearn.ensemble.RandomForestClassifier' (got 'RandomForestClassifier').",
            id="pattern",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\ntags: [small, Big]",
            "tiny.yaml:4: tags[1]: expected lower-case letters and digits with single dashes "
            "between them (got 'Big').",
            id="slug",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\ntargets: []",
            "tiny.yaml:4: targets: expected a list of at least 1 (got []).",
            id="empty-list",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\npreprocessing: {mean: [0.5, 0.5]}",
            "tiny.yaml:4: preprocessing.mean: expected a list of 3 (got [0.5, 0.5]).",
            id="list-too-short",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\npreprocessing: {std: [1, 1, 1, 1]}",
            "tiny.yaml:4: preprocessing.std: expected a list of 3 (got [1, 1, 1, 1]).",
            id="list-too-long",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\nlabels: imagenet",
            "tiny.yaml:4: labels: expected a list or 'imagenet-1k' (got 'imagenet'). "
            "Did you mean 'imagenet-1k'?",
            id="union-of-list-and-word",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\nlabels: [cat, 3]",
            "tiny.yaml:4: labels[1]: expected text (got 3). Put it in quotes.",
            id="member-of-a-union",
        ),
        pytest.param(
            "low: 0, high: 8",
            "low: 8, high: 0",
            "tiny.yaml:15: signature.inputs[0].domain: low (8.0) must be below high (0.0).",
            id="validator",
        ),
        pytest.param(
            "shape: [batch, 4]",
            "shape: [4]",
            "tiny.yaml:12: signature.inputs[0]: input 'x': the first axis must be the dynamic "
            "axis 'batch'.",
            id="validator-of-a-shape",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\ntargets: [saved_model]",
            "tiny.yaml:4: targets: 'saved_model' is made from 'onnx', so list 'onnx' too.",
            id="validator-of-the-whole",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\nvariants: [float16, fp8]",
            "tiny.yaml:4: variants[1].kind: expected one of 'float16', 'bfloat16', 'int8' "
            "(got 'fp8').",
            id="unknown-variant",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\nvariants: [int8]",
            "tiny.yaml:4: variants: 'int8' is calibrated on real rows, and 'parity.real' names "
            "none; name some there, or leave 'int8' out.",
            id="int8-without-real-rows",
        ),
        pytest.param(
            "licence: MIT",
            "licence: MIT\nvariants: [{kind: float16, per_channel: true}]",
            "tiny.yaml:4: variants[0].per_channel: unknown field (got true).",
            id="option-of-another-variant",
        ),
        pytest.param(
            "name: tiny",
            "name: tinny",
            "tiny.yaml:1: name: must be the file's name (expected 'tiny', got 'tinny').",
            id="name",
        ),
        pytest.param(
            "name: tiny",
            f"name: {'t' * 64}",
            f"tiny.yaml:1: name: expected text of at most 63 characters (got '{'t' * 64}').",
            id="long-name",
        ),
    ],
)
def test_a_fault_is_told_in_one_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert complaint(tmp_path, changed(old, new)) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(
            "{kind: keras-file, download: {uri: 'ftp://host/m.h5', sha256: ABC}}",
            "tiny.yaml:4: source.download.uri: expected https://…, s3://bucket/key, "
            "file:///path or pypi:NAME==VERSION#MEMBER, without spaces (got 'ftp://host/m.h5').\n"
            "tiny.yaml:4: source.download.sha256: expected a SHA-256 digest of 64 lower-case "
            "hexadecimal digits (got 'ABC').",
            id="download",
        ),
        pytest.param(
            "{kind: keras-file}",
            "tiny.yaml:4: source.download: missing (expected fields, at least uri, sha256).",
            id="no-download",
        ),
        pytest.param(
            "{kind: torchvision, model: resnet50, weights: IMAGENET1K_V1}",
            "tiny.yaml:4: source: weights 'IMAGENET1K_V1' need a download with its sha256.",
            id="weights-without-download",
        ),
        pytest.param(
            f"{{kind: sklearn-pickle, downloads: [{{uri: 'file:///m.pkl', sha256: '{DIGEST}'}}]}}",
            "tiny.yaml:4: source.trusted: a pickle runs code when loaded; say 'trusted: true' "
            "or use skops.",
            id="pickle-not-trusted",
        ),
        pytest.param(
            f"{{kind: keras-file, download: {{uri: 'file:///m.h5', sha256: '{DIGEST}', "
            f"md5: '{MD5}'}}}}",
            "tiny.yaml:4: source.download: is pinned twice, by 'sha256' and by 'md5'; keep "
            "'sha256' alone.",
            id="two-digests",
        ),
        pytest.param(
            "{kind: keras-file, download: {uri: 'file:///m.h5'}}",
            "tiny.yaml:4: source.download: needs 'sha256' (write 64 zeros in quotes, and the "
            "run's error tells what came); weights of 'keras-applications' may have 'md5' "
            "instead, their publisher's own digest.",
            id="no-digest",
        ),
        pytest.param(
            f"{{kind: keras-file, download: {{uri: 'file:///m.h5', md5: '{MD5}'}}}}",
            f"tiny.yaml:4: source.download: {NO_MD5_HERE}",
            id="md5-of-a-file",
        ),
        pytest.param(
            "{kind: torchvision, model: resnet50, weights: IMAGENET1K_V1, download: "
            f"{{uri: 'https://host/m.pth', md5: '{MD5}'}}}}",
            f"tiny.yaml:4: source.download: {NO_MD5_HERE}",
            id="md5-of-torchvision",
        ),
        pytest.param(
            "{kind: sklearn-pickle, trusted: true, downloads: "
            f"[{{uri: 'file:///m.joblib', md5: '{MD5}'}}]}}",
            f"tiny.yaml:4: source.downloads[0]: {NO_MD5_HERE}",
            id="md5-of-a-pickle",
        ),
        pytest.param(
            "{kind: keras-applications, model: ResNet50, weights: imagenet, download: "
            "{uri: 'https://host/m.h5', md5: 2CB9}}",
            "tiny.yaml:4: source.download.md5: expected an MD5 digest of 32 lower-case "
            "hexadecimal digits (got '2CB9').",
            id="no-md5",
        ),
        pytest.param(
            "train-sklearn",
            "tiny.yaml:4: source: expected fields, as 'key: value' lines (got 'train-sklearn').",
            id="text-for-a-source",
        ),
        pytest.param(
            "{kind: [train-torch]}",
            "tiny.yaml:4: source.kind: expected one of 'train-sklearn', 'train-torch', "
            "'torchvision', 'keras-applications', 'torch-program', 'keras-file', 'saved-model', "
            "'sklearn-pickle' (got [\"train-torch\"]).",
            id="list-for-a-kind",
        ),
    ],
)
def test_a_fault_of_a_source_is_told(tmp_path: Path, source: str, expected: str) -> None:
    document = yaml.safe_load(GOOD)
    del document["source"], document["name"], document["description"], document["licence"]
    head = "name: tiny\ndescription: d\nlicence: l\n"

    assert complaint(tmp_path, f"{head}source: {source}\n{yaml.safe_dump(document)}") == expected


@pytest.mark.parametrize(
    "digests",
    ["", f", sha256: '{DIGEST}', md5: '{MD5}'"],
    ids=["none", "both"],
)
def test_an_editor_tells_that_a_download_has_not_one_digest(digests: str) -> None:
    text = (MODELS / "keras-resnet50.yaml").read_text("utf-8")
    document = yaml.safe_load(text)
    document["source"]["download"] = yaml.safe_load(f"{{uri: 'https://host/m.h5'{digests}}}")
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))

    assert not validator.is_valid(document)


def test_a_picture_is_never_known_by_an_md5(tmp_path: Path) -> None:
    text = (MODELS / "mobilenet-v2.yaml").read_text("utf-8").replace("mobilenet-v2", "tiny")
    digest = "sha256: 596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"
    assert text.count(digest) == 1

    words = complaint(tmp_path, text.replace(digest, f"md5: '{MD5}'"))

    assert words.endswith(f": parity.real.files[0]: {NO_MD5_HERE}")


def test_several_faults_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = changed("dataset: iris", "dataset: irs").replace("licence: MIT", "licence: 3")

    lines = complaint(tmp_path, f"{text}device: gpu\n").splitlines()

    assert [line.split(": ")[:2] for line in lines] == [
        ["tiny.yaml:3", "licence"],
        ["tiny.yaml:6", "source.dataset"],
        ["tiny.yaml:18", "device"],
    ]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_stands_in_a_file_is_told_as_a_fault_of_it(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    junk: list[Any] = [
        None,
        -1,
        math.nan,
        True,
        "",
        "\u2028",
        [],
        [[]],
        {},
        {"kind": [1]},
        {1: 2},
        ["a", {}],
    ]
    document = yaml.safe_load((MODELS / "mobilenet-v2.yaml").read_text("utf-8"))
    parent, key = document, chance.choice(list(document))
    while isinstance(parent[key], (dict, list)) and parent[key] and chance.random() < 0.7:
        parent = parent[key]
        key = chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    parent[key] = chance.choice(junk)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(document))

    with pytest.raises(ConfigurationError, match=r"tiny\.yaml:\d+: [a-z_.\[\]0-9]+: "):
        load_recipe("tiny", tmp_path)


# --- files that are not YAML, or not a recipe at all --------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: tiny\n\tx: 1\n", "tiny.yaml:2:1: not valid YAML: while scanning for the next "),
        ("name: [tiny\n", "tiny.yaml:2:1: not valid YAML: while parsing a flow sequence: expected"),
        (
            "name: tiny\nopset: 1\nname: x\n",
            "tiny.yaml:3:1: not valid YAML: 'name' stands here twice (first on line 1).",
        ),
        (
            "name: tiny\nsource:\n  seed: 1\n  seed: 2\n",
            "tiny.yaml:4:3: not valid YAML: 'seed' stands here twice (first on line 3).",
        ),
        ("name: !!python/object:os.system x\n", "tiny.yaml:1:7: not valid YAML: could not det"),
        ("a: &a [*a]\n", "tiny.yaml: not valid YAML in UTF-8: Circular reference detected."),
        ("", "tiny.yaml: is empty. Begin with 'name: tiny'."),
        ("# nothing\n", "tiny.yaml: is empty. Begin with 'name: tiny'."),
        ("- name: tiny\n", "tiny.yaml:1: expected fields, as 'key: value' lines (got [{"),
        ("tiny\n", "tiny.yaml:1: expected fields, as 'key: value' lines (got 'tiny')."),
        ("a: 1\n---\nb: 2\n", "tiny.yaml:2:1: not valid YAML: expected a single document"),
    ],
)
def test_a_file_that_is_no_recipe_is_told(tmp_path: Path, text: str, expected: str) -> None:
    assert complaint(tmp_path, text).startswith(expected)


def test_a_file_in_another_encoding_is_told(tmp_path: Path) -> None:
    written(tmp_path, "").write_bytes(b"description: caf\xe9\n")

    with pytest.raises(ConfigurationError, match="not valid YAML in UTF-8: 'utf-8' codec can't"):
        load_recipe("tiny", tmp_path)


def test_numbers_and_words_are_read_as_editors_read_them(tmp_path: Path) -> None:
    text = changed("{n_estimators: 10}", "{a: 1e-3, b: no, c: true, d: -.5, e: 010.5e1, f: .inf}")
    written(tmp_path, text.replace("licence: MIT", "licence: 2020-01-01"))

    recipe = load_recipe("tiny", tmp_path)

    assert recipe.source.kind == "train-sklearn"
    params = recipe.source.steps[0].params
    assert params == {"a": 1e-3, "b": "no", "c": True, "d": -0.5, "e": 105.0, "f": float("inf")}
    assert recipe.licence == "2020-01-01"


# --- names and folders --------------------------------------------------------------------------


def test_an_unknown_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    written(tmp_path, GOOD, "other")

    with pytest.raises(ConfigurationError) as caught:
        load_recipe("tinny", tmp_path)

    assert str(caught.value) == (
        f"{tmp_path}: no recipe is called 'tinny'. Did you mean 'tiny'? There are: other, tiny."
    )


@pytest.mark.parametrize("name", ["../tiny", "tiny.yaml", "", "/etc/passwd"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    written(tmp_path, GOOD)
    written(folder, GOOD)

    with pytest.raises(ConfigurationError, match="no recipe is called"):
        load_recipe(name, folder)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no such folder\. Set CONVEYOR_CATALOGUE"):
        load_catalogue(tmp_path / "nowhere")


def test_the_catalogue_tells_the_faults_of_all_files(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    for name in ("bad", "worse"):
        written(tmp_path, GOOD.replace("name: tiny", f"name: {name}\nopset: 1"), name)

    with pytest.raises(ConfigurationError) as caught:
        load_catalogue(tmp_path)

    fault = "yaml:2: opset: expected a number of at least 9 (got 1)."
    assert str(caught.value) == f"{tmp_path}/bad.{fault}\n{tmp_path}/worse.{fault}"


# --- the command line ---------------------------------------------------------------------------


def test_check_prints_a_line_for_each_recipe_and_fails_on_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, GOOD)
    good = main(["--folder", str(tmp_path), "check"])
    written(tmp_path, "name: bad\n", "bad")
    bad = main(["--folder", str(tmp_path), "check"])
    one = main(["--folder", str(tmp_path), "check", "tiny"])

    printed = capsys.readouterr()
    assert (good, bad, one) == (0, 1, 0)
    assert printed.out == "tiny: train-sklearn to onnx\n" * 3
    assert "bad.yaml:1: source: missing" in printed.err


def test_schema_writes_the_file_that_editors_read(tmp_path: Path) -> None:
    code = main(["--folder", str(tmp_path), "schema"])

    assert code == 0
    assert (tmp_path / SCHEMA_FILE).read_text("utf-8") == schema_text()


def test_the_catalogue_imports_nothing_heavy() -> None:
    code = "import sys, tasks.catalogue; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    heavy = {"prefect", "boto3", "httpx", "torch", "tensorflow", "sklearn", "onnx", "jsonschema"}
    assert heavy.isdisjoint(done.stdout.split())


def test_a_thousand_recipes_are_parsed_by_libyaml() -> None:
    assert yaml.__with_libyaml__, "the wheel of PyYAML has it"
    assert issubclass(_Loader, yaml.CSafeLoader)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.yaml")), ids=lambda path: path.stem)
def test_both_parsers_of_yaml_see_the_same_recipe_on_the_same_lines(path: Path) -> None:
    def outline(node: yaml.Node | None) -> Any:
        assert node is not None
        at = (node.tag, node.start_mark.line, node.start_mark.column)
        if isinstance(node, yaml.ScalarNode):
            return (*at, node.value)
        children = node.value if isinstance(node, yaml.SequenceNode) else sum(node.value, ())
        return (*at, [outline(each) for each in children])

    class Slow(yaml.SafeLoader):
        yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    assert outline(_compose(path)) == outline(yaml.compose(path.read_text("utf-8"), Slow))


# --- waivers ------------------------------------------------------------------------------------


def test_a_waiver_that_has_expired_is_told_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(GOOD.replace("licence: MIT", WAIVER))

    recipe = load_recipe("tiny", tmp_path, today=date(2099, 12, 31))
    with pytest.raises(ConfigurationError) as caught:
        load_recipe("tiny", tmp_path, today=date(2100, 1, 1))

    assert recipe.waivers[0].owner == "mara"
    assert str(caught.value) == (
        f"{tmp_path}/tiny.yaml:5: waivers[0].expires: the waiver of labels of every probe/label "
        "expired (its last day was 2099-12-31, today is 2100-01-01; owner: mara). Mend the model "
        "and remove the waiver, or let its owner renew it."
    )


def test_an_expired_waiver_does_not_stop_the_other_models(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(
        GOOD.replace("licence: MIT", WAIVER.replace("2099", "2019"))
    )

    assert [recipe.name for recipe in load_catalogue(tmp_path)] == ["tiny"]
