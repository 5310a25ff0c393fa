"""Where Keras models and SavedModels come from."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import AcquisitionError, ConfigurationError, SignatureMismatchError
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.runners import FAMILIES
from tasks.sources import (
    SOURCES,
    AcquireRequest,
    keras_applications,
    keras_file,
    saved_model_folder,
)
from tasks.steps.answer import AnswerRequest, answer
from tests.support import keras_nets as nets
from tests.support.keras_nets import NetRequest, RunRequest, SaveAs

if TYPE_CHECKING:
    from numpy.typing import NDArray

DOWNLOAD = {"uri": "https://example.org/weights.h5", "sha256": 64 * "0"}


def recipe_of(source: dict[str, Any], image: tuple[int, ...], classes: int) -> Recipe:
    domain = {"kind": "range", "low": -1, "high": 1}
    shape = ("batch", *image)
    inputs = [{"name": "images", "dtype": "float32", "shape": shape, "domain": domain}]
    outputs = [{"name": "scores", "dtype": "float32", "shape": ("batch", classes)}]
    return Recipe.model_validate(
        {
            "name": "small",
            "description": "A test.",
            "licence": "none",
            "source": source,
            "signature": {"inputs": inputs, "outputs": outputs},
        }
    )


def application(model: str = "MobileNetV2", **source: Any) -> Recipe:
    return recipe_of(
        {"kind": "keras-applications", "model": model, "head": "linear", **source}, (32, 32, 3), 10
    )


def call(family: Family = Family.TENSORFLOW) -> Call:
    return Call("acquire", "small", family, fails_as=AcquisitionError)


def acquire(children: Children, recipe: Recipe, folder: Path, *downloads: Path) -> Path:
    folder.mkdir()
    request = AcquireRequest(recipe=recipe, downloads=downloads, folder=folder)
    module = keras_file if recipe.source.kind == "keras-file" else keras_applications
    children.call(module.acquire, request, call())
    return folder / "model.keras"


def weights(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read("model.weights.h5")


def test_one_seed_makes_one_file_and_another_seed_another(
    children: Children, tmp_path: Path
) -> None:
    first, again, other = (
        acquire(children, application(seed=seed), tmp_path / name)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )

    assert first.read_bytes() == again.read_bytes()
    assert weights(first) != weights(other)


def test_an_unknown_application_is_refused_with_the_known_ones(
    children: Children, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"no 'ResNet51' \(expected one of .*ResNet50"):
        acquire(children, application("ResNet51"), tmp_path / "source")


def test_a_file_that_holds_no_weights_is_refused(children: Children, tmp_path: Path) -> None:
    page = tmp_path / "download"
    page.write_text("<html>Not found</html>")

    with pytest.raises(AcquisitionError, match="does not hold the weights of MobileNetV2"):
        acquire(
            children,
            application(weights="imagenet", download=DOWNLOAD),
            tmp_path / "source",
            page,
        )


@pytest.fixture
def network(children: Children, tmp_path: Path) -> Path:
    """A Keras file under a name without an ending, as the cache has it."""
    folder = tmp_path / "network"
    folder.mkdir()
    children.call(nets.build_net, NetRequest(net="cnn", folder=folder), call())
    return (folder / "model.keras").rename(folder / "0123abcd")


def test_a_keras_file_is_known_by_its_content(
    children: Children, tmp_path: Path, network: Path
) -> None:
    recipe = recipe_of({"kind": "keras-file", "download": DOWNLOAD}, (16, 16, 3), 5)

    path = acquire(children, recipe, tmp_path / "source", network)

    assert weights(path) == weights(network)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_keras_file_of_either_format_is_loaded_and_answers_as_before(
    children: Children, tmp_path: Path, network: Path, name: str
) -> None:
    recipe = recipe_of({"kind": "keras-file", "download": DOWNLOAD}, (16, 16, 3), 5)
    saved = SaveAs(source=network, target=tmp_path / name)
    children.call(nets.save_as, saved, call())
    (tmp_path / "original").mkdir()
    shutil.copy(network, tmp_path / "original" / "model.keras")

    path = acquire(children, recipe, tmp_path / "source", saved.target.rename(tmp_path / "0123"))

    first = keras_answers(children, recipe, tmp_path / "original")
    again = keras_answers(children, recipe, path.parent)
    np.testing.assert_array_equal(first, again)
    assert np.ptp(first) > 0.01


def keras_answers(children: Children, recipe: Recipe, folder: Path) -> NDArray[Any]:
    rows = np.random.default_rng(1).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
    inputs, answers = folder / "in.npz", folder / "out.npz"
    save_arrays(inputs, {"images": rows})
    request = RunRequest(recipe=recipe, folder=folder, inputs=inputs, answers=answers)
    children.call(nets.run_net, request, call())
    return load_arrays(answers)["scores"]


def test_a_keras_file_that_contradicts_the_recipe_is_refused(
    children: Children, tmp_path: Path, network: Path
) -> None:
    recipe = recipe_of({"kind": "keras-file", "download": DOWNLOAD}, (3, 16, 16), 5)

    with pytest.raises(SignatureMismatchError, match=r"expected .*\[batch, 3, 16, 16\]"):
        acquire(children, recipe, tmp_path / "source", network)


def test_a_file_that_is_no_model_is_refused(children: Children, tmp_path: Path) -> None:
    recipe = recipe_of({"kind": "keras-file", "download": DOWNLOAD}, (16, 16, 3), 5)
    page = tmp_path / "download"
    page.write_text("<html>Not found</html>")

    with pytest.raises(AcquisitionError, match=r"source.download: .*Keras cannot load it"):
        acquire(children, recipe, tmp_path / "source", page)


SAVED_MODEL = recipe_of({"kind": "saved-model", "download": DOWNLOAD}, (4,), 2)
FILES = {"nmp/saved_model.pb": b"graph", "nmp/variables/variables.index": b"index"}


def unpack(tmp_path: Path, download: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    saved_model_folder.acquire(
        AcquireRequest(recipe=SAVED_MODEL, downloads=(download,), folder=folder)
    )
    return folder


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_a_packed_saved_model_is_unpacked_from_where_its_graph_is(
    tmp_path: Path, pack: Any
) -> None:
    folder = unpack(tmp_path, pack(tmp_path / "download", FILES))

    found = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    assert found == {"saved_model.pb", "variables/variables.index"}
    assert not (tmp_path / "source-unpacked").exists()


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_an_archive_that_reaches_outside_is_refused(tmp_path: Path, pack: Any) -> None:
    download = pack(tmp_path / "download", FILES | {"../evil": b"evil"})

    with pytest.raises(AcquisitionError, match=r"small: source.download: .*outside"):
        unpack(tmp_path, download)

    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("content", [b"<html>", b"PK\x03\x04broken", b"\x1f\x8bbroken"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    download = tmp_path / "download"
    download.write_bytes(content)

    with pytest.raises(AcquisitionError, match=r"neither a folder nor an archive|does not unpack"):
        unpack(tmp_path, download)


def packed(folder: Path, how: str) -> Path:
    """Return a real SavedModel as it may be downloaded, under a name without an ending."""
    if how == "folder":
        return folder
    shutil.make_archive(str(folder.with_name("packed")), how, folder.parent, folder.name)
    (archive,) = folder.parent.glob("packed.*")
    return archive.rename(folder.with_name("0123abcd"))


@pytest.mark.parametrize("how", ["folder", "zip", "gztar"])
def test_a_real_saved_model_is_acquired_and_answers_as_before(
    children: Children, tmp_path: Path, how: str
) -> None:
    legacy = call(Family.TENSORFLOW_LEGACY)
    saved = tmp_path / "given" / "nmp"
    saved.mkdir(parents=True)
    children.call(nets.save_module, NetRequest(net="module", folder=saved), legacy)
    recipe = recipe_of({"kind": "saved-model", "download": DOWNLOAD}, (64,), 4_000)
    renamed = recipe.model_dump()
    renamed["signature"]["inputs"][0]["name"] = "x"
    renamed["signature"]["outputs"][0]["name"] = "wide"
    recipe = Recipe.model_validate(renamed)
    source = tmp_path / "source"
    source.mkdir()
    kind = SOURCES["saved-model"]
    request = AcquireRequest(recipe=recipe, downloads=(packed(saved, how),), folder=source)

    children.call(kind.acquire, request, call(kind.family))

    first, again = (module_answers(children, recipe, folder) for folder in (saved, source))
    np.testing.assert_array_equal(first, again)
    assert np.ptp(first) > 0.01


def module_answers(children: Children, recipe: Recipe, folder: Path) -> NDArray[Any]:
    """Answer as the parity stage lets the source answer."""
    rows = np.random.default_rng(1).uniform(-1, 1, (3, 64)).astype(np.float32)
    probes, answers = folder.with_name("probes"), folder.with_name(f"{folder.name}-answers")
    for each in (probes, answers):
        each.mkdir(exist_ok=True)
    save_arrays(probes / "random.npz", {"x": rows})
    request = AnswerRequest(
        recipe=recipe,
        format=ModelFormat.SAVED_MODEL,
        model=folder,
        probes=probes,
        names=("random",),
        device="cpu",
        folder=answers,
    )
    children.call(answer, request, call(FAMILIES[ModelFormat.SAVED_MODEL]))
    return load_arrays(answers / "random.npz")["wide"]


def test_a_folder_without_a_saved_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "download"
    folder.mkdir()

    with pytest.raises(AcquisitionError, match=r"expected one saved_model.pb in it, got 0"):
        unpack(tmp_path, folder)
