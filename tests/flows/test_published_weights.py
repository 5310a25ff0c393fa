"""Published weights: as the publisher keeps them, or an error at once; never others in silence."""

from __future__ import annotations

import hashlib
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow

from flows.release_model import release_model
from tasks.acquire import acquire
from tasks.catalogue import load_recipe
from tasks.domain.errors import AcquisitionError
from tasks.domain.recipe import Recipe
from tasks.domain.release import SourceModel
from tasks.domain.sources import KerasApplication, TorchvisionModel
from tasks.isolation import Call, Children, Family
from tasks.runtime import open_workshop, workshop
from tasks.settings import local_settings
from tests.flows.conftest import forget_settings
from tests.support.flaky_server import FlakyServer, Reply
from tests.support.keras_nets import NetRequest, save_published_weights

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = Path(__file__).parents[2] / "models"
APPLICATION: dict[str, Any] = {
    "signature": {
        "inputs": [
            {
                "name": "images",
                "dtype": "float32",
                "shape": ["batch", 32, 32, 3],
                "domain": {"kind": "range", "low": -1, "high": 1},
            }
        ],
        "outputs": [{"name": "scores", "dtype": "float32", "shape": ["batch", 10]}],
    },
    "parity": {"profile": "float32-conv"},
}


@flow
def acquire_alone(recipe: Recipe) -> tuple[SourceModel, bytes]:
    """Return the source model, and the weights that stand in its file."""
    with open_workshop():
        source = acquire(recipe)
        path = workshop().fetch(source.artifact.tree) / "model.keras"
        with zipfile.ZipFile(path) as archive:
            return source, archive.read("model.weights.h5")


@pytest.mark.parametrize("model", ["resnet50", "keras-resnet50"])
def test_without_internet_published_weights_fail_at_once_and_say_what_to_do(
    model: str, catalogue: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue()
    for name in ("NO_PROXY", "no_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    # there is no way out through a proxy that does not answer, wherever this test runs
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("CONVEYOR_CATALOGUE", str(MODELS))
    monkeypatch.setenv("CONVEYOR_CACHE", str(tmp_path / "cache"))
    forget_settings()
    source = load_recipe(model, MODELS).source
    assert isinstance(source, TorchvisionModel | KerasApplication)
    assert source.download
    digest = source.download.digest
    started = time.monotonic()

    with pytest.raises(AcquisitionError) as caught:
        release_model(model)

    assert time.monotonic() - started < 30
    words = str(caught.value)
    place = tmp_path / "cache" / digest.algorithm / digest.hexadecimal[:2] / digest.hexadecimal
    assert words.startswith(f"{source.download.uri}: ")
    assert "cannot be reached" in words
    assert f"This download needs that network. Without it, put the file at {place}, or" in words


def test_weights_known_by_md5_are_loaded_and_their_sha256_is_told(
    catalogue: Callable[..., str],
    children: Children,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = NetRequest(net="MobileNetV2", seed=3, folder=tmp_path)
    children.call(save_published_weights, request, Call("test", "net", Family.TENSORFLOW))
    body = (tmp_path / "weights.h5").read_bytes()
    md5, sha256 = hashlib.md5(body, usedforsecurity=False), hashlib.sha256(body)
    monkeypatch.setenv("CONVEYOR_CACHE", str(tmp_path / "cache"))
    with FlakyServer([Reply(body)]) as server:
        uri = f"{server.address}/mobilenet_v2_weights.h5"
        source = {
            "kind": "keras-applications",
            "model": "MobileNetV2",
            "weights": "imagenet",
            "head": "linear",
            "download": {"uri": uri, "md5": md5.hexdigest()},
        }
        model = catalogue(source=source, **APPLICATION)
        forget_settings()
        acquired, weights = acquire_alone(load_recipe(model, local_settings().catalogue))

    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert weights == archive.read("model.weights.h5")
    told = (
        f"{uri} came with md5 {md5.hexdigest()}, as its publisher says, and with "
        f"sha256 {sha256.hexdigest()}"
    )
    assert told in acquired.notes
    assert told in caplog.text
