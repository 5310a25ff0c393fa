"""Variants of a trained network: what is worth its place is released, the rest is told of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from flows.release_model import release_model
from tasks.domain.errors import VariantError
from tasks.settings import store_settings
from tasks.storage import publishing
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.domain.release import Manifest
    from tasks.domain.variants import PublishedVariant
    from tasks.storage.store import ObjectStore

MODELS = Path(__file__).parents[2] / "models"


def digits(**changes: Any) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load((MODELS / "digits-cnn.yaml").read_text())
    return recipe | changes


def store() -> ObjectStore:
    return open_store(store_settings())


def latest(model: str) -> Manifest:
    manifest = publishing.latest(store(), model)
    assert manifest is not None
    return manifest


def test_float16_and_int8_stand_beside_the_model_and_a_bad_one_is_told_of(
    catalogue: Callable[..., str],
) -> None:
    strict = {"kind": "bfloat16", "keep_float32": ["NoSuchOperator"]}
    model = catalogue(**digits(variants=["float16", "int8", strict]))

    published = release_model(model)

    manifest = latest(model)
    assert published.latest
    assert [each.released for each in manifest.variants] == [True, True, False]
    parent = manifest.formats[0].size_bytes
    for each in manifest.variants[:2]:
        require_proven(each, parent)
    paths = {file.path for file in manifest.files}
    assert {f"onnx-{kind}/model.onnx" for kind in ("float16", "int8")} <= paths
    assert {f"parity/onnx-{kind}.json" for kind in ("float16", "int8")} <= paths
    assert not [path for path in paths if "bfloat16" in path]
    split = "calibrated on 64 held-out rows, none of the 64 that judge it"
    assert split in manifest.variants[1].notes
    assert manifest.variants[2].folder == ""
    assert "no operator or node 'NoSuchOperator'" in manifest.variants[2].reason
    page = store().read(f"{model}/1/parity/report.html").content.decode()
    assert "NoSuchOperator" in page
    assert "onnx-int8" in page


def require_proven(each: PublishedVariant, parent_bytes: int) -> None:
    assert each.folder == f"onnx-{each.kind}"
    assert each.size_bytes
    assert each.size_bytes < each.parent_bytes == parent_bytes
    assert each.parity
    assert (each.parity.passed, each.parity.profile) == (True, each.kind)
    assert each.agreement
    assert each.agreement.rows == 64
    assert each.agreement.source_accuracy is not None
    assert each.race


def test_a_required_variant_that_strays_fails_the_run_and_nothing_is_published(
    catalogue: Callable[..., str],
) -> None:
    crude = {"kind": "int8", "required": True, "accuracy_drop_at_most": 0, "top1_at_least": 1.0}
    wrong = [{"name": "logits", "dtype": "float32", "shape": ["batch", 10], "role": "logits"}]
    recipe = digits(variants=[crude | {"calibration_rows": 1}])
    recipe["signature"]["outputs"] = wrong
    # calibrated on one row alone, which is black: the ranges are those of no digit
    recipe["parity"] = recipe["parity"] | {
        "real": {"kind": "rows", "values": {"images": black_and_drawn()}}
    }
    model = catalogue(**recipe)

    with pytest.raises(VariantError, match="variant int8 is required and not released") as caught:
        release_model(model)

    assert publishing.latest(store(), model) is None
    prefix = str(caught.value).partition("kept under ")[2].partition(" ")[0].rstrip(".")
    report = json.loads(store().read(f"{prefix}onnx-int8.json").content)
    assert report["released"] is False
    assert report["reason"] in str(caught.value)


def black_and_drawn() -> list[Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    rows = [np.zeros((1, 8, 8)), *rng.integers(0, 17, (6, 1, 8, 8))]
    return [each.tolist() for each in rows]


def test_a_model_that_gains_nothing_is_released_without_the_variant(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(variants=["float16", "bfloat16", "int8"])

    release_model(model)

    manifest = latest(model)
    assert [each.released for each in manifest.variants] == [False, False, False]
    assert "no float32 weight" in manifest.variants[0].reason
    assert "no float32 weight of 64 elements" in manifest.variants[1].reason
    assert "nothing of it can be quantised" in manifest.variants[2].reason
    assert [each.folder for each in manifest.formats] == ["onnx"]
