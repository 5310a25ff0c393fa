"""Workers that share a host's GPUs: real processes, which are stopped, killed and replaced."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
from prefect import flow, task
from prefect.settings import get_current_settings

from deployments.processes import free_port
from deployments.worker import GPU, main, runtime_fault
from tasks.gpus import host_gpus
from tasks.remote import on_gpu
from tasks.runtime import open_workshop
from tasks.settings import gpu_settings
from tests.flows.conftest import forget_settings
from tests.support.gpu_functions import Stayed, StayRequest, stay
from tests.support.gpu_workers import GPUS, deploy, gpu_worker, wait_for_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deployments.processes import Leashed
    from deployments.s3_server import S3Server


@pytest.fixture(autouse=True)
def settings(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CONVEYOR_GPU_POLL_SECONDS", "0.3")
    monkeypatch.setenv("CONVEYOR_GPU_LOCKS", str(tmp_path / "locks"))
    gpu_settings.cache_clear()
    yield
    gpu_settings.cache_clear()
    forget_settings()


def stay_on_gpus(title: str, count: int, seconds: float, meanwhile: Callable[[], Any]) -> list[Any]:
    """Let ``count`` runs stay on GPUs at the same time; return where they were."""

    @task
    def one(who: int) -> Stayed:
        return on_gpu(stay, StayRequest(seconds=seconds, who=who), f"{title} {who}")

    @flow
    def caller() -> list[Stayed]:
        with open_workshop():
            asked = [one.submit(who) for who in range(count)]
            meanwhile()
            return [each.result() for each in asked]

    return caller()


def wait_until_running(name: str, seconds: float = 60) -> None:
    api = httpx.Client(base_url=str(get_current_settings().api.url), trust_env=False)
    query = {"flow_runs": {"name": {"any_": [name]}, "state": {"type": {"any_": ["RUNNING"]}}}}
    deadline = time.monotonic() + seconds
    while not api.post("/flow_runs/filter", json=query).json():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def process_of(worker: Leashed) -> psutil.Process:
    (found,) = psutil.Process(worker._process.pid).children()
    return found


def test_two_workers_of_one_host_have_different_gpus_and_one_that_is_stopped_ends_its_run_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy()
    port = free_port()
    monkeypatch.setenv("PREFECT_WORKER_WEBSERVER_PORT", str(port))
    health = f"http://127.0.0.1:{port}/health"
    with (
        gpu_worker(tmp_path, "first", "--limit", "1") as first,
        gpu_worker(tmp_path, "second", "--limit", "1"),
        gpu_worker(tmp_path, "third", "--with-healthcheck", wait=False) as third,
    ):
        wait_for_words(third, "waiting: other workers of this host")
        while_it_waits = httpx.get(health, trust_env=False)

        def stop_the_first() -> None:
            wait_until_running("two 0")
            wait_until_running("two 1")
            process_of(first).send_signal(signal.SIGTERM)

        stays = stay_on_gpus("two", 2, 4, stop_the_first)

        assert {each.worker: each.gpu for each in stays} == {"first": GPUS[0], "second": GPUS[1]}
        assert first.wait() == 0
        wait_for_words(third, "started!")
        once_it_has_one = httpx.get(health, trust_env=False)

    assert while_it_waits.json() == {"message": "waiting for a GPU"}
    assert once_it_has_one.json() == {"message": "OK"}


def test_two_workers_of_one_host_without_a_name_are_two_to_the_server() -> None:
    told = [
        subprocess.run(
            [
                sys.executable,
                "-c",
                "from deployments.worker import _own_name as n; print(n(['a']))",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]

    assert len(set(told)) == 2
    assert all(each.startswith(f"{platform.node()}-a-") for each in told)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, ("GPU-a", "GPU-b")), ("1", ("GPU-b",)), ("GPU-b, 0", ("GPU-b", "GPU-a")), ("", ())],
)
def test_the_gpus_of_a_host_are_those_that_are_visible_by_the_name_that_every_worker_gives_them(
    visible: str | None,
    expected: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-a'\necho '1, GPU-b'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert host_gpus() == expected


def test_a_worker_refuses_to_start_with_an_onnxruntime_that_does_not_fit_its_pool(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["--pool", GPU])

    assert code == 1
    assert capsys.readouterr().err == (
        "pool 'gpu': the installed ONNX Runtime does not fit (expected onnxruntime-gpu alone, "
        "got onnxruntime). Make a new environment with the extra 'gpu': "
        "pip install -r requirements/gpu.txt\n"
    )


def test_two_onnxruntimes_in_one_environment_fit_no_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    both.mkdir()
    (both / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n"
    )
    assert runtime_fault("cpu") == ""

    monkeypatch.syspath_prepend(tmp_path)

    for pool in ("cpu", "gpu"):
        assert "got onnxruntime and onnxruntime-gpu" in runtime_fault(pool)


def test_a_host_without_gpus_gets_no_gpu_worker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONVEYOR_GPU_REQUIRE_RUNTIME", "false")
    monkeypatch.setenv("CONVEYOR_GPU_DEVICES", "[]")
    gpu_settings.cache_clear()

    code = main(["--pool", GPU])

    assert code == 1
    assert "this host shows no GPU" in capsys.readouterr().err
