"""A pass that changes the answers is named, left out and recorded, and the release goes on."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flows.release_model import release_model
from tasks.domain.diagnosis import Diagnosis
from tasks.domain.errors import ParityError
from tasks.isolation import Call, Children, Family
from tasks.settings import store_settings
from tasks.storage import publishing
from tasks.storage.digest import sha256_of
from tasks.storage.s3 import open_store
from tests.support import pass_functions
from tests.support.pass_functions import Net

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.domain.release import PublishedFormat

RESIDUAL: dict[str, Any] = {
    "description": "A residual block with random weights and BatchNorm statistics.",
    "signature": {
        "inputs": [
            {
                "name": "x",
                "dtype": "float32",
                "shape": ["batch", 4, 8, 8],
                "layout": "NCHW",
                "domain": {"kind": "range", "low": -2, "high": 2.5},
            }
        ],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 4]}],
    },
    "opset": 18,
    "parity": {"profile": "float32-conv"},
}


def released(model: str) -> PublishedFormat:
    manifest = publishing.latest(open_store(store_settings()), model)
    assert manifest is not None
    return manifest.formats[0]


def test_the_fusion_that_cost_resnet_its_accuracy_is_left_out_of_the_release(
    catalogue: Callable[..., str], children: Children, tmp_path: Path
) -> None:
    call = Call("save", "residual", Family.TORCH)
    children.call(pass_functions.save_program, Net(name="resnet", folder=tmp_path), call)
    program = tmp_path / "program.pt2"
    download = {"uri": program.as_uri(), "sha256": sha256_of(program)}
    source = {"kind": "torch-program", "download": download}
    model = catalogue(**RESIDUAL, source=source, converters={"onnx": ["collides"]})

    release_model(model)

    onnx = released(model)
    assert onnx.parity.passed
    (skipped,) = onnx.skipped
    assert skipped.name == "fuse-batchnorm-colliding"
    assert skipped.stage == "exporter's optimisation"
    assert skipped.reason.startswith("changed the answers (y: ")
    assert onnx.onnx is not None
    assert onnx.onnx.operators["BatchNormalization"] == 2
    assert [each.succeeded for each in onnx.attempts] == [True]
    report = open_store(store_settings()).read(f"{model}/1/parity/report.html").content.decode()
    assert "fuse-batchnorm-colliding" in report


def test_each_harmful_pass_is_skipped_for_its_own_reason_and_the_sound_ones_run(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(converters={"onnx": ["harmful-passes"]})

    release_model(model)

    onnx = released(model)
    assert onnx.parity.passed
    reasons = {each.name: each.reason for each in onnx.skipped}
    assert set(reasons) == {"raises", "loses-an-intercept", "widens-an-output"}
    assert reasons["raises"] == "it raised ZeroDivisionError: division by zero"
    assert reasons["loses-an-intercept"].startswith("changed the answers (probabilities: ")
    assert reasons["widens-an-output"].startswith("broke the model (")
    assert "probabilities" in reasons["loses-an-intercept"]
    assert "expected float32[batch, 3], got float32[batch, 4]" in reasons["widens-an-output"]


def test_a_raw_export_that_is_wrong_is_nobody_elses_fault(catalogue: Callable[..., str]) -> None:
    model = catalogue(converters={"onnx": ["drops-bias"]})

    with pytest.raises(ParityError, match="first wrong after raw export on probe"):
        release_model(model)

    kept = open_store(store_settings())
    (key,) = [k for k in kept.keys(f"quarantine/{model}/") if k.endswith("diagnosis-1.json")]
    diagnosis = Diagnosis.model_validate_json(kept.read(key).content)
    assert (diagnosis.stage, diagnosis.converter) == ("raw export", "drops-bias")
    assert [each.passed for each in diagnosis.verdicts] == [False]


def test_what_is_kept_of_a_failed_run_shows_the_fault_without_us(
    catalogue: Callable[..., str], tmp_path: Path
) -> None:
    model = catalogue(converters={"onnx": ["drops-bias"]})
    with pytest.raises(ParityError, match="differs first"):
        release_model(model)
    kept = open_store(store_settings())
    keys = list(kept.keys(f"quarantine/{model}/"))
    (key,) = [each for each in keys if each.endswith("diagnosis-1.json")]
    diagnosis = Diagnosis.model_validate_json(kept.read(key).content)
    prefix = f"{key.removesuffix('diagnosis-1.json')}{diagnosis.reproducer}/"
    for each in keys:
        if each.startswith(prefix):
            (tmp_path / each.removeprefix(prefix)).write_bytes(kept.read(each).content)

    done = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "reproduce.py")],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip

    assert diagnosis.culprit is not None
    assert diagnosis.reproducer
    assert done.returncode == 1, done.stdout + done.stderr
    assert diagnosis.culprit.tensor in done.stdout


def test_the_diagnosis_of_a_failed_converter_is_kept_when_another_is_proven(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(converters={"onnx": ["answers-nan", "skl2onnx"]})

    release_model(model)

    failed, won = released(model).attempts
    assert failed.diagnosis.startswith("first wrong after raw export on probe")
    assert "NaN" in failed.diagnosis
    assert won.diagnosis == ""
    assert np.isfinite(released(model).parity.budget)
