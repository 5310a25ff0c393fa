"""Layouts hold the release's bytes, or do not appear; KServe's YAML names what is in the bucket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import (
    ArtifactNotFoundError,
    ConfigurationError,
    DigestMismatchError,
    StorageError,
)
from tasks.domain.release import Manifest, PublishedFormat
from tasks.domain.variants import VariantOutcome, published_variant
from tasks.serving.command import main
from tasks.serving.source import from_bucket, from_folder
from tasks.serving.triton_layout import lay_out_triton
from tasks.settings import store_settings
from tasks.storage.publishing import publish
from tasks.storage.s3 import open_store
from tests.support.onnx_shuffle import with_external_data
from tests.support.publisher import files_below, manifest_maker
from tests.unit.test_report import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deployments.s3_server import S3Server
    from tasks.domain.release import ReleaseFile
    from tasks.storage.s3 import S3Store

_WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    store_settings.cache_clear()
    yield open_store(store_settings())
    store_settings.cache_clear()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder as a release has it: an ONNX model with its weights beside it, and a SavedModel."""
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("x", 4), ("y", 3))
    ]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    weights = [numpy_helper.from_array(_WEIGHTS, "w")]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path / "files"
    for path in ("onnx", "tf/variables", "golden"):
        (folder / path).mkdir(parents=True)
    with_external_data(model, folder / "onnx")
    (folder / "tf" / "saved_model.pb").write_bytes(b"graph")
    (folder / "tf" / "variables" / "variables.index").write_bytes(b"index")
    (folder / "golden" / "inputs.npz").write_bytes(b"rows")
    return folder


def manifest_for(model: str, **changes: Any) -> Callable[[int, tuple[ReleaseFile, ...]], Manifest]:
    def published(format_: ModelFormat) -> PublishedFormat:
        return PublishedFormat(
            format=format_, folder=format_.folder, sha256="0" * 64, size_bytes=1,
            converter="c", attempts=(), checks=(), onnx=None, parity=report(format_), notes=(),
        )  # fmt: skip

    def make(version: int, files: tuple[ReleaseFile, ...]) -> Manifest:
        plain = manifest_maker(model)(version, files)
        formats = tuple(
            published(each)
            for each in (ModelFormat.ONNX, ModelFormat.SAVED_MODEL)
            if any(file.path.startswith(f"{each.folder}/") for file in files)
        )
        recipe = type(plain.recipe).model_validate(plain.recipe.model_dump(mode="json") | changes)
        return plain.model_copy(update={"formats": formats, "recipe": recipe})

    return make


@pytest.fixture
def released(store: S3Store, files: Path, request: pytest.FixtureRequest) -> str:
    """Publish the files as version 1 of a model of the test's own."""
    model = f"net-{abs(hash(request.node.nodeid)):x}"[:40]
    publish(store, model, files_below(files), manifest_for(model), owner="test")
    return model


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {path: file.read_bytes() for path, file in files_below(folder).items()}


# --- Triton and TensorFlow Serving -----------------------------------------------------------


def test_triton_gets_the_released_bytes_with_the_weights_beside_the_model(
    released: str, files: Path, tmp_path: Path
) -> None:
    code = main(["triton", released, "--out", str(tmp_path / "repository")])

    assert code == 0
    made = bytes_below(tmp_path / "repository")
    assert sorted(made) == [
        f"{released}/1/model.onnx",
        f"{released}/1/model.onnx.data",
        f"{released}/config.pbtxt",
    ]
    for name in ("model.onnx", "model.onnx.data"):
        assert made[f"{released}/1/{name}"] == (files / "onnx" / name).read_bytes()


def test_triton_gets_a_variant_where_one_is_asked_for(
    store: S3Store, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "onnx-int8").mkdir()
    (files / "onnx-int8" / "model.onnx").write_bytes(b"smaller")
    made = [
        published_variant(
            VariantOutcome(kind=kind, reason="strays", parent_bytes=9, released=kind == "int8")
        )
        for kind in ("int8", "float16")
    ]

    def with_variants(version: int, listed: tuple[ReleaseFile, ...]) -> Manifest:
        plain = manifest_for("net-varied")(version, listed)
        return plain.model_copy(update={"variants": tuple(made)})

    publish(store, "net-varied", files_below(files), with_variants, owner="test")

    code = main(["triton", "net-varied", "--variant", "int8", "--out", str(tmp_path / "r")])
    refused = main(["triton", "net-varied", "--variant", "float16", "--out", str(tmp_path / "s")])

    assert (code, refused) == (0, 1)
    assert (tmp_path / "r/net-varied/1/model.onnx").read_bytes() == b"smaller"
    assert "(expected one of: int8; it was refused: strays)" in capsys.readouterr().err


def test_a_model_with_its_weights_beside_it_loads_from_tritons_folder(
    released: str, tmp_path: Path
) -> None:
    main(["triton", released, "1", "--out", str(tmp_path)])
    x = np.eye(4, dtype=np.float32)

    session = onnxruntime.InferenceSession(tmp_path / released / "1" / "model.onnx")

    np.testing.assert_array_equal(session.run(None, {"x": x})[0], _WEIGHTS)


def test_tensorflow_serving_gets_the_released_tree(
    released: str, files: Path, tmp_path: Path
) -> None:
    code = main(["tfserving", released, "latest", "--out", str(tmp_path / "models")])

    assert code == 0
    assert bytes_below(tmp_path / "models" / released / "1") == bytes_below(files / "tf")


def test_two_versions_share_a_repository(released: str, store: S3Store, files: Path,
                                         tmp_path: Path) -> None:  # fmt: skip
    publish(store, released, files_below(files), manifest_for(released), owner="second")

    for version in ("1", "2"):
        assert main(["triton", released, version, "--out", str(tmp_path)]) == 0

    assert {path.name for path in (tmp_path / released).iterdir()} == {"1", "2", "config.pbtxt"}


def test_the_same_layout_again_changes_nothing(released: str, tmp_path: Path) -> None:
    main(["triton", released, "--out", str(tmp_path)])
    before = bytes_below(tmp_path)

    assert main(["triton", released, "--out", str(tmp_path)]) == 0

    assert bytes_below(tmp_path) == before


def test_what_was_made_is_told_as_json(
    released: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["triton", released, "--out", str(tmp_path / "out"), "--json"])

    told = json.loads(capsys.readouterr().out)
    assert (told["server"], told["model"], told["version"]) == ("triton", released, 1)
    assert {each["path"] for each in told["files"]} == set(bytes_below(tmp_path / "out"))
    assert told["command"].startswith("docker run --rm -p 8000:8000")
    assert f"-v {tmp_path}/out:/models:ro" in told["command"]


def test_labels_stand_one_a_line(store: S3Store, files: Path, tmp_path: Path) -> None:
    scores = {"name": "y", "dtype": "float32", "shape": ["batch", 3], "role": "logits"}
    signature = manifest_maker("net")(1, ()).recipe.model_dump(mode="json")["signature"]
    make = manifest_for(
        "labelled", labels=["a", "b c", "d\ne"], signature=signature | {"outputs": [scores]}
    )
    publish(store, "labelled", files_below(files), make, owner="labels")

    layout = lay_out_triton(from_bucket(store, "labelled"), tmp_path)

    assert (tmp_path / "labelled" / "labels.txt").read_text() == "a\nb c\nd e\n"
    assert "labelled/labels.txt" in {each.path for each in layout.files}


# --- what goes wrong -------------------------------------------------------------------------


def test_nothing_appears_where_a_file_is_not_the_released_one(
    released: str, store: S3Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = f"{released}/1/onnx/model.onnx.data"
    store.remove(key)
    store.create(key, b"other bytes")

    code = main(["triton", released, "--out", str(tmp_path)])

    assert code == 1
    assert "content changed since it was recorded" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / released).iterdir()] == ["config.pbtxt"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(
            lambda folder: (folder / "1" / "model.onnx").write_bytes(b"x"),
            "content changed",
            id="other-bytes",
        ),
        pytest.param(
            lambda folder: (folder / "1" / "model.plan").write_bytes(b"x"),
            "first that differs: model.plan",
            id="a-file-too-many",
        ),
        pytest.param(
            lambda folder: (folder / "config.pbtxt").write_text("name: 'x'"),
            "config.pbtxt: is there already, for another signature",
            id="another-configuration",
        ),
    ],
)
def test_what_stands_there_is_not_overwritten(
    released: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], object], words: str,
) -> None:  # fmt: skip
    main(["triton", released, "--out", str(tmp_path)])
    change(tmp_path / released)
    before = bytes_below(tmp_path)

    code = main(["triton", released, "--out", str(tmp_path)])

    assert code == 1
    assert words in capsys.readouterr().err
    assert bytes_below(tmp_path) == before


def test_a_release_without_the_format_says_which_it_has(
    store: S3Store, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only_onnx = {k: v for k, v in files_below(files).items() if not k.startswith("tf/")}
    publish(store, "only-onnx", only_onnx, manifest_for("only-onnx"), owner="one")

    code = main(["tfserving", "only-onnx", "--out", str(tmp_path)])

    assert code == 1
    assert (
        "only-onnx version 1: has no TensorFlow SavedModel (expected one of its formats: onnx"
        in (capsys.readouterr().err)
    )


@pytest.mark.parametrize("which", ["latest", "champion", "12"])
def test_a_release_that_is_not_there_is_refused(store: S3Store, which: str) -> None:
    with pytest.raises(ArtifactNotFoundError, match="nobody/"):
        from_bucket(store, "nobody", which)


def test_an_alias_to_another_manifest_is_refused(released: str, store: S3Store) -> None:
    alias = json.loads(store.read(f"{released}/aliases/latest.json").content)
    alias["manifest_sha256"] = "f" * 64
    store.create(f"{released}/aliases/canary.json", json.dumps(alias).encode())

    with pytest.raises(DigestMismatchError, match="content changed"):
        from_bucket(store, released, "canary")


# --- from a folder ---------------------------------------------------------------------------


@pytest.fixture
def copied(files: Path, released: str, store: S3Store) -> Path:
    manifest = store.read(f"{released}/1/manifest.json").content
    (files / "manifest.json").write_bytes(manifest)
    return files


def test_a_release_in_a_folder_is_laid_out_like_one_in_the_bucket(
    released: str, copied: Path, tmp_path: Path
) -> None:
    main(["triton", released, "--out", str(tmp_path / "a")])

    code = main(["triton", released, "--release", str(copied), "--out", str(tmp_path / "b")])

    assert code == 0
    assert bytes_below(tmp_path / "a") == bytes_below(tmp_path / "b")


def test_a_changed_file_in_the_folder_is_refused(
    released: str, copied: Path, tmp_path: Path
) -> None:
    (copied / "onnx" / "model.onnx").write_bytes(b"other")

    with pytest.raises(DigestMismatchError, match=r"model\.onnx: content changed"):
        lay_out_triton(from_folder(copied, released), tmp_path / "out")


def test_a_missing_file_in_the_folder_is_named(released: str, copied: Path, tmp_path: Path) -> None:
    (copied / "onnx" / "model.onnx.data").unlink()

    with pytest.raises(ArtifactNotFoundError, match=r"model\.onnx\.data: is not there"):
        lay_out_triton(from_folder(copied, released), tmp_path / "out")


def test_a_folder_of_another_model_is_refused(copied: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"another model \(expected mine"):
        from_folder(copied, "mine")


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match=r"holds no manifest\.json"):
        from_folder(tmp_path, "net")


# --- KServe ----------------------------------------------------------------------------------


def kserve(model: str, out: Path, *options: str) -> dict[str, Any]:
    assert main(["kserve", model, "--out", str(out), *options]) == 0
    made: dict[str, Any] = yaml.safe_load((out / f"{model}-1.yaml").read_text())
    return made


_KSERVE: dict[str, tuple[dict[str, str], set[str]]] = {
    "triton": (
        {"name": "triton", "runtime": "kserve-tritonserver"},
        {"{}/1/model.onnx", "{}/1/model.onnx.data", "{}/config.pbtxt"},
    ),
    "tfserving": (
        {"name": "tensorflow", "runtime": "kserve-tensorflow-serving"},
        {"1/saved_model.pb", "1/variables/variables.index"},
    ),
}


@pytest.mark.parametrize("server", _KSERVE)
def test_kserve_names_a_layout_that_stands_in_the_bucket(
    released: str, store: S3Store, tmp_path: Path, server: str
) -> None:
    made = kserve(released, tmp_path, "--runtime", server)

    wanted, below = _KSERVE[server]
    kind = (made["apiVersion"], made["kind"], made["metadata"]["name"])
    assert kind == ("serving.kserve.io/v1beta1", "InferenceService", released)
    predictor = made["spec"]["predictor"]
    assert predictor["serviceAccountName"] == "conveyor-models"
    assert predictor["model"]["modelFormat"] == {"name": wanted["name"]}
    assert predictor["model"]["runtime"] == wanted["runtime"]
    prefix = f"serving/{server}/{released}/1"
    assert predictor["model"]["storageUri"] == store.url(prefix)
    keys = {key.removeprefix(f"{prefix}/") for key in store.keys(f"{prefix}/")}
    assert keys == {each.format(released) for each in below}


def test_the_layout_in_the_bucket_has_the_released_bytes(
    released: str, store: S3Store, files: Path, tmp_path: Path
) -> None:
    assert main(["triton", released, "--upload", "--out", str(tmp_path)]) == 0

    key = f"serving/triton/{released}/1/{released}/1/model.onnx.data"
    assert store.read(key).content == (files / "onnx" / "model.onnx.data").read_bytes()


def test_another_layout_of_one_version_is_refused_in_the_bucket(
    released: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kserve(released, tmp_path / "a")

    code = main(["kserve", released, "--max-batch-size", "4", "--out", str(tmp_path / "b")])

    assert code == 1
    assert "config.pbtxt: content changed" in capsys.readouterr().err


def test_a_storage_uri_of_ones_own_uploads_nothing(
    released: str, store: S3Store, tmp_path: Path
) -> None:
    made = kserve(released, tmp_path, "--storage-uri", "pvc://models/net")

    assert made["spec"]["predictor"]["model"]["storageUri"] == "pvc://models/net"
    assert list(store.keys(f"serving/triton/{released}/")) == []


def test_a_gpu_is_asked_for_where_the_recipe_runs_on_one(
    store: S3Store, files: Path, tmp_path: Path
) -> None:
    make = manifest_for("8-bit", device="cuda")
    publish(store, "8-bit", files_below(files), make, owner="gpu")

    made = kserve("8-bit", tmp_path)

    assert made["spec"]["predictor"]["model"]["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert made["metadata"]["name"] == "m-8-bit"  # KServe's names begin with a letter


def test_no_model_may_be_called_as_the_folder_of_the_layouts(store: S3Store, files: Path) -> None:
    with pytest.raises((ConfigurationError, StorageError), match="purpose of its own"):
        publish(store, "serving", files_below(files), manifest_for("serving"), owner="x")


def test_a_batch_of_no_rows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["triton", "net", "--out", "x", "--max-batch-size", "0"])

    assert "expected 1 or more (got 0)" in capsys.readouterr().err
