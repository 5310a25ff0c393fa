"""Real workers of the pool ``gpu``, on a host whose GPUs are but names."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings
from prefect.types.entrypoint import EntrypointType

from deployments.pools import create_pools
from deployments.processes import Leashed
from flows.gpu_stage import gpu_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
GPUS = ("fake-0", "fake-1")


def deploy(name: str = "default", pool: str = "gpu") -> None:
    """Declare the pools, and deploy the stages on one of them."""

    async def declare() -> None:
        async with get_client() as client:
            await create_pools(client)
        kind = EntrypointType.MODULE_PATH
        deployment = await gpu_stage.ato_deployment(name, work_pool_name=pool, entrypoint_type=kind)
        await deployment.aapply()

    anyio.run(declare)


@contextmanager
def gpu_worker(folder: Path, name: str, *options: str, wait: bool = True) -> Iterator[Leashed]:
    """Start a worker on a host with two GPUs; end it as an orderly stop would."""
    own = {
        "CONVEYOR_GPU_DEVICES": json.dumps(GPUS),
        "CONVEYOR_GPU_LOCKS": str(folder / "locks"),
        "CONVEYOR_GPU_REQUIRE_RUNTIME": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    prefect = get_current_settings().to_environment_variables(exclude_unset=True)
    command = [sys.executable, "-m", "deployments.worker", "--pool", "gpu", "--name", name]
    with Leashed(
        name,
        [*command, *options],
        log=folder / f"{name}-{uuid4().hex[:4]}.log",
        environment=os.environ | prefect | own,
        grace_seconds=30,
    ) as worker:
        if wait:
            wait_for_words(worker, "started!")
        yield worker


def wait_for_words(worker: Leashed, words: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while words not in worker.log.read_text():
        worker.raise_if_ended()
        assert time.monotonic() < deadline, worker.log.read_text()
        time.sleep(0.1)
