"""A model of more than 2 GiB, which no protobuf can hold, on its way through the whole line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deployments.s3_server import S3Server
from flows.release_model import release_model
from tasks.domain.artifact import StoredFile
from tasks.storage import publishing
from tasks.storage.digest import sha256_of
from tasks.storage.s3 import open_store
from tests.flows.conftest import forget_settings
from tests.support.cutting_proxy import CuttingProxy
from tests.support.large_program import INPUTS, OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.domain.release import Manifest
    from tasks.storage.s3 import S3Store

MIB = 1024 * 1024
MOST_OF_PARENT_MIB = 300
"""How far the parent may grow above what it held before: it holds parts of files, never one."""
MOST_OF_CHILD = 1.6
"""The most that a child may hold, in sizes of the weights: them, once, and its libraries."""
SIGNATURE = {
    "inputs": [
        {
            "name": "features",
            "dtype": "float32",
            "shape": ["batch", INPUTS],
            "domain": {"kind": "range", "low": -1, "high": 1},
        }
    ],
    "outputs": [{"name": "scores", "dtype": "float32", "shape": ["batch", OUTPUTS]}],
}


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Lend a folder for about 10 GB, and remove it whatever happens."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def memory_peak_mib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def forget_memory_peak() -> int:
    """Let the kernel count this process's peak anew; return what it holds now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_peak_mib()


@pytest.fixture
def server(scratch: Path) -> Iterator[S3Server]:
    """Start a server of the test's own, whose 2.3 GB go with the folder."""
    with S3Server(scratch / "store", grace_seconds=0) as server:
        yield server


ANSWER = """
import json, sys
import numpy, onnx, onnxruntime

onnx.checker.check_model(sys.argv[1], full_check=True)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
inputs, golden = numpy.load(sys.argv[2]), numpy.load(sys.argv[3])
(answer,) = session.run(None, dict(inputs))
numpy.testing.assert_allclose(answer, golden["scores"], rtol=1e-4, atol=1e-4)
print(json.dumps(list(answer.shape)))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_model_of_more_than_2_gib_is_released_in_bounded_memory_and_sent_once(
    catalogue: Callable[..., str],
    scratch: Path,
    server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = scratch / "program.pt2"
    command = [sys.executable, "-m", "tests.support.large_program", str(program)]
    weight_bytes = int(subprocess.check_output(command, text=True))
    model = catalogue(
        name="large",
        source={
            "kind": "torch-program",
            "download": {"uri": program.as_uri(), "sha256": sha256_of(program)},
        },
        signature=SIGNATURE,
        opset=18,
        parity={"profile": "float32-transformer"},
    )
    # no stage is kept for another try, on a slow machine either
    for name, value in (server.environment() | {"CONVEYOR_KEEP_AFTER_SECONDS": "3600"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CONVEYOR_CACHE", str(scratch / "cache"))
    monkeypatch.setenv("CONVEYOR_SCRATCH", str(scratch))
    # the connection breaks in the midst of the weights, as often as it takes to fail one try
    with CuttingProxy(server.endpoint, up_bytes=1024 * MIB, cuts=12) as proxy:
        monkeypatch.setenv("CONVEYOR_STORE_ENDPOINT", proxy.address)
        forget_settings()
        before = forget_memory_peak()

        release_model(model)

        grown = memory_peak_mib() - before

    store = open_store(server.settings)
    manifest = publishing.latest(store, model)
    assert manifest is not None
    assert weight_bytes > 2 * 1024 * MIB
    require_readable(store, manifest, scratch / "back", weight_bytes)
    # every part went there once, but for what was under way when the connection broke
    assert proxy.cuts == 0
    assert weight_bytes < proxy.passed["up"] < weight_bytes + 200 * MIB
    assert grown < MOST_OF_PARENT_MIB
    for stage, cost in manifest.costs.items():
        assert cost.peak_mb * MIB < MOST_OF_CHILD * weight_bytes, stage
    left = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=model)
    assert not left.get("Uploads")
    assert not list(scratch.glob("onnx-*")), "the run left its working files"


def require_readable(store: S3Store, manifest: Manifest, folder: Path, weight_bytes: int) -> None:
    """Read a release back by its manifest, and let ONNX Runtime answer as the source did."""
    sizes = {file.path: file.size_bytes for file in manifest.files}
    assert sizes["onnx/model.onnx"] < MIB
    assert sizes["onnx/model.onnx.data"] >= 0.999 * weight_bytes
    (onnx,) = manifest.formats
    assert onnx.parity.passed
    assert onnx.onnx is not None
    assert onnx.onnx.external_data
    for file in manifest.files:
        key = f"{manifest.model}/{manifest.version}/{file.path}"
        stored = StoredFile(key=key, sha256=file.sha256, size_bytes=file.size_bytes)
        store.get(stored, folder / file.path)
    files = ("onnx/model.onnx", "golden/inputs/random.npz", "golden/answers/random.npz")
    command = [sys.executable, "-c", ANSWER, *(str(folder / each) for each in files)]
    rows, outputs = json.loads(subprocess.check_output(command, text=True))
    assert (rows, outputs) == (8, OUTPUTS)
