"""The whole line, from a recipe to the bucket: what is proven is published, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from flows.release_model import release_model
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import (
    ArtifactNotFoundError,
    ChildCrashedError,
    ConfigurationError,
    ParityError,
    ReleaseConflictError,
    ReleaseError,
    StorageError,
    StorageUnavailableError,
    TimeLimitError,
)
from tasks.isolation import Children
from tasks.runtime import Workshop, open_workshop
from tasks.settings import store_settings
from tasks.storage import publishing
from tasks.storage.s3 import open_store
from tests.flows.conftest import LINEAR, forget_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.domain.release import Manifest
    from tasks.storage.store import ObjectStore

SIGNATURE = LINEAR["signature"]


def store() -> ObjectStore:
    return open_store(store_settings())


def latest(model: str) -> Manifest | None:
    return publishing.latest(store(), model)


def test_a_recipe_becomes_a_release_whose_manifest_names_every_file(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue()

    published = release_model(model)

    manifest = latest(model)
    assert manifest is not None
    assert manifest.version == published.version == 1
    folder = f"{model}/1/"
    keys = {key.removeprefix(folder) for key in store().keys(folder)}
    listed = {file.path for file in manifest.files}
    assert listed <= keys
    assert {key for key in keys - listed if not key.startswith(".")} == {
        "manifest.json",
        "model.sig",
    }
    pages = {"README.md", "index.html", "graph.svg"}
    assert {path.partition("/")[0] for path in listed} == {
        *("onnx", "parity", "golden", "provenance.json"),
        *pages,
    }
    (onnx,) = manifest.formats
    assert onnx.parity.passed
    assert onnx.format is ModelFormat.ONNX
    assert onnx.ms_per_row
    assert manifest.metrics["accuracy"] > 0.9


def test_no_working_file_is_left_after_a_release(catalogue: Callable[..., str]) -> None:
    before = list(store().keys("work/"))  # what runs of other tests left when they were killed

    release_model(catalogue())

    assert list(store().keys("work/")) == before


def test_a_second_release_is_the_next_version_and_leaves_the_first_as_it_was(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue()
    release_model(model)
    first = store().read(f"{model}/1/manifest.json")

    release_model(model, force=True)

    assert store().read(f"{model}/1/manifest.json") == first
    again = latest(model)
    assert again is not None
    assert again.formats[0].notes == ("repeats version 1: the same canonical digest",)
    manifest = latest(model)
    assert manifest is not None
    assert manifest.version == 2


@pytest.mark.parametrize("fault", ["drops-bias", "answers-nan"])
def test_a_converter_that_answers_wrongly_publishes_nothing_and_moves_nothing(
    fault: str, catalogue: Callable[..., str]
) -> None:
    model = catalogue()
    release_model(model)
    recipe_file = _recipe_path(model)
    recipe_file.write_text(recipe_file.read_text() + f"\nconverters: {{onnx: [{fault}]}}\n")
    before = set(store().keys(f"{model}/"))

    with pytest.raises(ParityError, match="nothing is published") as caught:
        release_model(model)

    assert fault in str(caught.value)
    assert set(store().keys(f"{model}/")) == before
    manifest = latest(model)
    assert manifest is not None
    assert manifest.version == 1
    kept = list(store().keys(f"quarantine/{model}/"))
    assert any(key.endswith("report.html") for key in kept)
    assert any(key.endswith("onnx.json") for key in kept)
    shrunk = {key.rpartition("/")[2] for key in kept if f"/shrunk-onnx-{fault}/" in key}
    # where every row is NaN, none passes with which one could be compared
    files = {"inputs.npz", "expected.npz", "got.npz", "shrunk.txt"}
    assert shrunk == (files if fault == "drops-bias" else set())


def _recipe_path(model: str) -> Path:
    from tasks.settings import local_settings

    return local_settings().catalogue / f"{model}.yaml"


def test_the_next_converter_takes_over_from_one_that_answers_wrongly(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(converters={"onnx": ["crashes", "drops-bias", "skl2onnx"]})

    release_model(model)

    manifest = latest(model)
    assert manifest is not None
    (onnx,) = manifest.formats
    assert onnx.converter == "skl2onnx"
    assert [attempt.succeeded for attempt in onnx.attempts] == [False, False, True]
    crashed, strayed, won = onnx.attempts
    assert "SIGSEGV" in crashed.reason
    assert "probabilities" in strayed.reason
    assert "crashes, drops-bias" in won.reason


def test_a_converter_is_not_tried_for_an_opset_that_it_cannot_write(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(converters={"onnx": ["writes-old-opsets", "skl2onnx"]})

    release_model(model)

    manifest = latest(model)
    assert manifest is not None
    refused, won = manifest.formats[0].attempts
    assert refused.reason == f"{model}: writes-old-opsets writes no opset 17 (expected 9 to 12)."
    assert won.converter == "skl2onnx"


def test_a_crash_of_the_only_converter_names_stage_model_signal_and_last_words(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(converters={"onnx": ["crashes"]})

    with pytest.raises(ChildCrashedError) as caught:
        release_model(model)

    words = str(caught.value)
    assert words.startswith(f"{model}: export (crashes): the child process ended by signal SIGSEGV")
    assert f"converting {model} at address zero" in words
    assert latest(model) is None


def test_a_stage_that_takes_too_long_is_ended(catalogue: Callable[..., str]) -> None:
    model = catalogue(limits={"timeout_seconds": 1, "memory_mb": 8000})

    with pytest.raises(TimeLimitError, match="within its limit of 1 s"):
        release_model(model)


def test_a_shape_that_contradicts_the_model_is_one_clear_error(
    catalogue: Callable[..., str],
) -> None:
    narrow = SIGNATURE | {"inputs": [SIGNATURE["inputs"][0] | {"shape": ["batch", 12]}]}
    model = catalogue(signature=narrow)

    with pytest.raises(ConfigurationError, match=r"expected \[batch, 13\], got \[batch, 12\]"):
        release_model(model)


def test_an_unknown_model_is_named_with_its_nearest_neighbour(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue()

    with pytest.raises(ConfigurationError, match=model):
        release_model(model[:-1])


def test_a_missing_bucket_is_told_before_any_work(
    catalogue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = catalogue()
    monkeypatch.setenv("CONVEYOR_STORE_BUCKET", "no-such-bucket")
    forget_settings()

    with pytest.raises(StorageError, match="no-such-bucket"):
        release_model(model)


def test_wrong_credentials_are_told_before_any_work(
    catalogue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = catalogue()
    monkeypatch.setenv("CONVEYOR_STORE_SECRET_ACCESS_KEY", "not-the-secret")
    forget_settings()

    with pytest.raises(StorageError) as caught:
        release_model(model)

    assert not isinstance(caught.value, StorageUnavailableError)
    assert "CONVEYOR_STORE_" in str(caught.value)


def test_a_store_that_is_down_is_told_within_seconds(
    catalogue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = catalogue()
    monkeypatch.setenv("CONVEYOR_STORE_ENDPOINT", "http://127.0.0.1:9")
    forget_settings()
    started = time.monotonic()

    with pytest.raises(StorageUnavailableError, match=r"127\.0\.0\.1:9"):
        release_model(model)

    assert time.monotonic() - started < 60


def test_a_full_disk_is_told_and_nothing_is_published(
    catalogue: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs privileges that this machine does not give")
    monkeypatch.setenv("CONVEYOR_SCRATCH", str(small))
    model = catalogue()
    forget_settings()
    try:
        with pytest.raises(ReleaseError, match="No space left on device"):
            release_model(model)
    finally:
        subprocess.run(["umount", str(small)], check=True)

    assert latest(model) is None


def _release_elsewhere(model: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from flows.release_model import release_model; "
        "release_model(sys.argv[1], *map(int, sys.argv[2:]), force=True)"
    )
    from prefect.settings import get_current_settings

    prefect = get_current_settings().to_environment_variables(exclude_unset=True)
    return subprocess.run(
        [sys.executable, "-c", code, model, *arguments],
        env=os.environ | prefect,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_two_releases_of_one_model_at_once_are_both_whole(catalogue: Callable[..., str]) -> None:
    model = catalogue()

    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(_release_elsewhere, [model, model]))

    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    manifest = latest(model)
    assert manifest is not None
    assert manifest.version == 2
    for version in (1, 2):
        release = publishing.read_release(store(), model, version)
        for file in release.files:
            store().read(f"{model}/{version}/{file.path}")


def test_a_version_that_is_taken_is_refused(catalogue: Callable[..., str]) -> None:
    model = catalogue()
    release_model(model, version=7)
    before = {key: store().read(key).etag for key in store().keys(f"{model}/")}

    with pytest.raises(ReleaseConflictError, match="7"):
        release_model(model, version=7)

    assert {key: store().read(key).etag for key in store().keys(f"{model}/")} == before


def test_a_run_killed_in_the_middle_leaves_no_process_and_no_release(
    catalogue: Callable[..., str], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    model = catalogue()
    code = (
        "import os, sys, threading, time, psutil\n"
        "from flows.release_model import release_model\n"
        "def tell():\n"
        "    while not (found := psutil.Process().children(recursive=True)): time.sleep(0.01)\n"
        "    open(sys.argv[2], 'w').write(' '.join(str(p.pid) for p in found))\n"
        "threading.Thread(target=tell, daemon=True).start()\n"
        "release_model(sys.argv[1])\n"
    )
    from prefect.settings import get_current_settings

    prefect = get_current_settings().to_environment_variables(exclude_unset=True)
    run = subprocess.Popen([sys.executable, "-c", code, model, str(pids)], env=os.environ | prefect)
    while not (pids.exists() and pids.read_text()):
        assert run.poll() is None
        time.sleep(0.02)

    run.send_signal(signal.SIGKILL)
    run.wait()

    deadline = time.monotonic() + 10
    for pid in map(int, pids.read_text().split()):
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:  # noqa: PTH110
            time.sleep(0.05)
        assert time.monotonic() < deadline
    assert latest(model) is None


def test_stages_ask_for_a_workshop() -> None:
    from tasks.runtime import workshop

    with pytest.raises(ConfigurationError, match="open_workshop"):
        workshop()


def test_the_report_reads_back_as_it_was_written(catalogue: Callable[..., str]) -> None:
    model = catalogue()
    release_model(model)
    manifest = latest(model)
    assert manifest is not None

    report = json.loads(store().read(f"{model}/1/parity/onnx.json").content)

    assert report["discriminates"] is True
    assert manifest.formats[0].parity.model_dump(mode="json") == report


def test_a_workshop_clears_its_folder(catalogue: Callable[..., str]) -> None:
    catalogue()
    with open_workshop() as shop:
        folder = shop.new_folder("any")
        assert folder.is_dir()

    assert not folder.exists()


def test_a_shared_tree_reaches_the_workshop_of_another_machine(
    catalogue: Callable[..., str], tmp_path: Path
) -> None:
    catalogue()
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "deep" / "weights").write_bytes(b"weights")
    with open_workshop() as here:
        tree = here.keep(made, "model")
        other = tmp_path / "other"
        other.mkdir()
        with Children(other) as children:
            there = Workshop(here.store, children, other, "another-run")
            with pytest.raises(ArtifactNotFoundError, match="deep/weights"):
                there.fetch(tree)
            here.share(tree)

            fetched = there.fetch(tree)

        assert fetched.is_relative_to(other)
        assert (fetched / "deep" / "weights").read_bytes() == b"weights"
        assert list(here.store.keys(here.prefix)) == [f"{tree.root}/deep/weights"]

    assert list(store().keys(here.prefix)) == []
