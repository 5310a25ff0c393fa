"""A real release, laid out for its servers, answers from there as it did when it was proven."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import yaml

from flows.release_model import release_model
from tasks.arrays import load_arrays, save_arrays
from tasks.catalogue import load_recipe
from tasks.isolation import Call, Children, Family
from tasks.serving.command import main
from tasks.serving.source import BucketRelease, from_bucket
from tasks.settings import store_settings
from tasks.storage.s3 import open_store
from tests.flows.conftest import forget_settings
from tests.support import keras_nets
from tests.support.keras_nets import RunRequest
from tests.support.triton_schema import parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from deployments.s3_server import S3Server

    Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def released(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Release the catalogue's forest, in both formats, under a name of its own."""
    folder = tmp_path_factory.mktemp("models")
    name = f"forest-{os.urandom(4).hex()}"
    fields = yaml.safe_load(Path("models/iris-random-forest.yaml").read_text())
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(fields | {"name": name}))
    with pytest.MonkeyPatch.context() as patch:
        for key, value in s3_server.environment().items():
            patch.setenv(key, value)
        patch.setenv("CONVEYOR_CATALOGUE", str(folder))
        forget_settings()
        release_model(name)
        yield name
    forget_settings()


@pytest.fixture
def release(released: str) -> BucketRelease:
    return from_bucket(open_store(store_settings()), released)


def golden(release: BucketRelease, folder: Path) -> Iterator[tuple[str, Arrays, Arrays]]:
    """Fetch each probe, and the source framework's answers to it."""
    for file in release.manifest.files:
        if file.path.startswith("golden/"):
            release.fetch(file, folder / file.path)
    for path in sorted((folder / "golden" / "inputs").iterdir()):
        yield path.stem, load_arrays(path), load_arrays(folder / "golden" / "answers" / path.name)


def assert_golden(got: Arrays, expected: Arrays) -> None:
    np.testing.assert_array_equal(got["label"], expected["label"])
    np.testing.assert_allclose(got["probabilities"], expected["probabilities"], atol=1e-6)


def test_triton_gets_a_model_that_answers_as_it_was_proven_to(
    release: BucketRelease, tmp_path: Path
) -> None:
    model, version = release.manifest.model, release.manifest.version
    out = tmp_path / "repository"

    assert main(["triton", model, "--out", str(out)]) == 0

    session = onnxruntime.InferenceSession(out / model / str(version) / "model.onnx")
    names = [each.name for each in session.get_outputs()]
    probes = list(golden(release, tmp_path))
    assert probes
    for _, inputs, answers in probes:
        assert_golden(dict(zip(names, session.run(names, inputs), strict=True)), answers)


def test_tritons_configuration_and_labels_are_those_of_the_model(
    release: BucketRelease, tmp_path: Path
) -> None:
    model, version = release.manifest.model, str(release.manifest.version)

    main(["triton", model, "--out", str(tmp_path)])

    config = parsed((tmp_path / model / "config.pbtxt").read_text())
    session = onnxruntime.InferenceSession(tmp_path / model / version / "model.onnx")
    assert config.name == model
    assert [each.name for each in config.input] == [each.name for each in session.get_inputs()]
    assert [each.name for each in config.output] == [each.name for each in session.get_outputs()]
    assert config.output[1].label_filename == "labels.txt"
    labels = (tmp_path / model / "labels.txt").read_text().splitlines()
    assert labels == list(load_recipe("iris-random-forest", Path("models")).labels or ())


def test_tensorflow_serving_gets_a_model_that_answers_as_it_was_proven_to(
    release: BucketRelease, children: Children, tmp_path: Path
) -> None:
    manifest = release.manifest
    out = tmp_path / "models"

    assert main(["tfserving", manifest.model, "--out", str(out)]) == 0

    folder = out / manifest.model / str(manifest.version)
    probes = list(golden(release, tmp_path))
    assert probes
    for name, inputs, answers in probes:
        request = RunRequest(
            recipe=manifest.recipe, folder=folder,
            inputs=tmp_path / f"{name}-in.npz", answers=tmp_path / f"{name}-out.npz",
        )  # fmt: skip
        save_arrays(request.inputs, inputs)
        call = Call("run", manifest.model, Family.TENSORFLOW_LEGACY)
        children.call(keras_nets.run_module, request, call)
        assert_golden(load_arrays(request.answers), answers)


def test_the_manifest_has_the_canonical_digest_and_what_was_held_to_serve(
    release: BucketRelease,
) -> None:
    onnx = next(each for each in release.manifest.formats if each.onnx)

    assert onnx.onnx is not None
    assert onnx.onnx.canonical is not None
    assert any(each.startswith("fits onnxruntime 1.15: opset 17 of at most 19") for each in
               onnx.checks)  # fmt: skip


def test_what_is_published_asks_for_no_newer_ir_than_it_needs(
    catalogue: Callable[..., str],
) -> None:
    serve = [{"kind": "onnxruntime", "at_least": "1.15"}]
    model = catalogue(converters={"onnx": ["newer-ir"]}, serve=serve)

    release_model(model)

    manifest = from_bucket(open_store(store_settings()), model).manifest
    (onnx,) = manifest.formats
    assert onnx.onnx is not None
    assert onnx.onnx.ir_version == 8
    assert "IR version lowered from 12 to 8, which is enough" in onnx.notes
