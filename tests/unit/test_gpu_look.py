"""Whether ONNX Runtime can use a GPU is asked of a session, with CUDA's own libraries loaded."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tasks.domain.errors import ConfigurationError
from tasks.isolation import Family
from tasks.runners.onnxruntime_runner import open_session, run_session
from tasks.steps import gpu
from tasks.steps.gpu import LookRequest, look
from tests.support.gpu_build import CUDA, GpuBuild

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.runners import Device

MISSING = "Failed to load libcublasLt.so.13: cannot open shared object file"


def gpu_build(patch: pytest.MonkeyPatch, *, has_gpu: bool, libraries: bool) -> GpuBuild:
    build = GpuBuild(gpu=has_gpu, libraries=libraries)
    patch.setitem(sys.modules, "onnxruntime", build)
    patch.setattr(gpu, "gpu_is_there", lambda: has_gpu)
    return build


@pytest.fixture
def model(tmp_path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    opset = helper.make_opsetid("", 17)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_session_on_cuda_finds_the_libraries_that_its_packages_brought(
    device: Device, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = gpu_build(monkeypatch, has_gpu=True, libraries=True)

    session = open_session("small", model, device)

    assert build.loaded is (device == "cuda")
    assert (CUDA in session.get_providers()) is (device == "cuda")
    np.testing.assert_array_equal(run_session(session, {"x": np.ones(1, np.float32)})["y"], [-1])


def test_a_session_that_falls_back_says_which_library_was_missing(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_build(monkeypatch, has_gpu=True, libraries=False)

    with pytest.raises(ConfigurationError) as raised:
        open_session("small", model, "cuda")

    assert f"expected {CUDA} first, got CPUExecutionProvider; {MISSING}" in str(raised.value)
    assert capsys.readouterr().out == ""


def test_a_gpu_that_a_session_runs_on_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_build(monkeypatch, has_gpu=True, libraries=True)

    seen = look(LookRequest(family=Family.ONNXRUNTIME))

    assert seen.usable, seen.found


@pytest.mark.parametrize(
    ("has", "found", "remedy"),
    [("a GPU", MISSING, "requirements/gpu.txt"), ("libraries", "no GPU", "nvidia-smi")],
)
def test_a_gpu_that_is_listed_but_of_no_use_is_told_before_the_work_begins(
    has: str, found: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_build(monkeypatch, has_gpu=has == "a GPU", libraries=has == "libraries")

    seen = look(LookRequest(family=Family.ONNXRUNTIME))

    assert not seen.usable
    assert found in seen.found
    assert "does not run on 'cuda'" in seen.found
    assert remedy in seen.remedy


def test_a_tensorflow_that_finds_no_gpu_names_both_versions_of_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shipped = SimpleNamespace(
        __version__="2.21.0",
        config=SimpleNamespace(list_physical_devices=lambda _: []),
        sysconfig=SimpleNamespace(get_build_info=lambda: {"cuda_version": "12.5.1"}),
    )
    monkeypatch.setitem(sys.modules, "tensorflow", shipped)

    seen = look(LookRequest(family=Family.TENSORFLOW))

    assert not seen.usable
    assert "tensorflow 2.21.0 built for CUDA 12.5.1, 0 GPUs" in seen.found
    assert "brings CUDA 13" in seen.remedy
