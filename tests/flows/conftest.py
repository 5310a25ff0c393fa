"""A real Prefect engine, a real S3 server, and a catalogue of each test's own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from tasks.converters import _table
from tasks.settings import local_settings, store_settings
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deployments.s3_server import S3Server
    from tasks.storage.store import ObjectStore

_SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "manifest.schema.json").read_text())

LINEAR: dict[str, Any] = {
    "name": "linear",
    "description": "A linear classifier, small and quick.",
    "licence": "BSD-3-Clause",
    "source": {
        "kind": "train-sklearn",
        "dataset": "wine",
        "steps": [
            {"estimator": "sklearn.preprocessing.StandardScaler"},
            {
                "estimator": "sklearn.linear_model.LogisticRegression",
                "params": {"max_iter": 500},
            },
        ],
    },
    "signature": {
        "inputs": [
            {
                "name": "features",
                "dtype": "float32",
                "shape": ["batch", 13],
                "domain": {"kind": "range", "low": 0, "high": 20},
            }
        ],
        "outputs": [
            {"name": "label", "dtype": "int64", "shape": ["batch"], "role": "labels"},
            {
                "name": "probabilities",
                "dtype": "float32",
                "shape": ["batch", 3],
                "role": "probabilities",
            },
        ],
    },
    "targets": ["onnx"],
    "opset": 17,
    "parity": {"profile": "float32-conv", "real": {"kind": "held-out"}},
}


@pytest.fixture(scope="session", autouse=True)
def prefect() -> Iterator[None]:
    heartbeats_off = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with prefect_test_harness(server_startup_timeout=90), temporary_settings(heartbeats_off):
        yield


def forget_settings() -> None:
    for cached in (local_settings, store_settings, _table):
        cached.cache_clear()


@pytest.fixture
def catalogue(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Lend a function that writes a recipe, with changes, and returns its name."""
    folder = tmp_path / "models"
    folder.mkdir()
    packages = '["tasks.converters", "tests.support.faulty_converters"]'
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CONVEYOR_CATALOGUE", str(folder))
    monkeypatch.setenv("CONVEYOR_CONVERTER_PACKAGES", packages)
    forget_settings()

    def write(**changes: Any) -> str:
        recipe = LINEAR | changes
        # one bucket for all tests: a name of its own keeps each test's releases apart
        recipe["name"] = f"{recipe['name']}-{os.urandom(4).hex()}"
        (folder / f"{recipe['name']}.yaml").write_text(yaml.safe_dump(recipe))
        return str(recipe["name"])

    yield write
    for file in folder.glob("*.yaml"):
        require_valid_manifests(open_store(s3_server.settings), file.stem)
    forget_settings()


def require_valid_manifests(store: ObjectStore, model: str) -> None:
    """Hold every manifest of a model to the schema that is published."""
    for key in store.keys(f"{model}/"):
        if key.endswith("/manifest.json"):
            jsonschema.validate(json.loads(store.read(key).content), _SCHEMA)
