"""A worker that lends each of its runs one GPU, and ends without killing what it runs."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import anyio
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from deployments.processes import StackError
from tasks.gpus import GpuClaim, claim, host_gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.abc import TaskStatus
    from prefect.client.schemas.objects import FlowRun

_TICK_SECONDS = 0.2
_BETWEEN_LOOKS_SECONDS = 2.0


class DrainingWorker(ProcessWorker):
    """Prefect's process worker, which on SIGTERM takes no more runs and waits for those it has.

    Prefect's own kills them, and leaves them Running, with nobody to say how they ended.
    """

    # another name than the parent's in Prefect's table of workers, where this one is not wanted
    type = "process-draining"

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - Prefect's own
        super().__init__(*arguments, **options)
        self.type = "process"  # of the pools that it works for
        self.draining = False
        self._running = 0

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take new runs, unless the worker is about to end."""
        return [] if self.draining else await super().get_and_submit_flow_runs()

    @property
    def is_busy(self) -> bool:
        """Whether it has runs, or is about to start one."""
        return bool(self._running or self._submitting_flow_run_ids)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Run ``flow_run`` in a process, and know that it runs."""
        self._running += 1
        try:
            return await super().run(flow_run, configuration, task_status)
        finally:
            self._running -= 1


class GpuWorker(DrainingWorker):
    """It has as many places as it has claimed GPUs; each run sees the one that it is lent."""

    type = "process-gpu"

    def __init__(self, *arguments: Any, claims: Sequence[GpuClaim], **options: Any) -> None:  # noqa: ANN401 - Prefect's own
        super().__init__(*arguments, limit=len(claims), **options)
        self._free = list(claims)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Run ``flow_run`` in a process that sees one GPU, which no other run has."""
        lent = self._free.pop(0)  # there is one: there are as many places as GPUs
        try:
            configuration.env.update(lent.environment())
            self.get_flow_run_logger(flow_run).info(
                "Worker '%s' lends it GPU %s", self.name, lent.gpu
            )
            return await super().run(flow_run, configuration, task_status)
        finally:
            self._free.append(lent)


def claim_gpus(most: int | None, say: Callable[[str], None]) -> list[GpuClaim]:
    """Claim the GPUs of this host that no other worker has; wait until there is one.

    Args:
        most: How many to take; absent: all.
        say: Is told, once, that all are taken.

    Raises:
        StackError: This host has no GPU.
    """
    gpus = host_gpus()
    if not gpus:
        message = (
            "this host shows no GPU (nvidia-smi, CUDA_VISIBLE_DEVICES). Start the GPU worker on "
            "one that does, or name its GPUs: CONVEYOR_GPU_DEVICES='[\"0\"]'."
        )
        raise StackError(message)
    said = False
    while True:
        claims: list[GpuClaim] = []
        for gpu in gpus:
            if most is not None and len(claims) >= most:
                break
            if taken := claim(gpu):
                claims.append(taken)
        if claims:
            return claims
        if not said:
            say(f"waiting: other workers of this host, or their runs, have {', '.join(gpus)}")
            said = True
        time.sleep(_BETWEEN_LOOKS_SECONDS)


async def work(worker: DrainingWorker, *, healthcheck: bool = False) -> None:
    """Let ``worker`` work until a first SIGTERM or SIGINT and the end of its runs, or a second."""
    async with anyio.create_task_group() as group:
        group.start_soon(_drain, worker, group.cancel_scope)
        await worker.start(with_healthcheck=healthcheck)
        group.cancel_scope.cancel()


async def _drain(worker: DrainingWorker, scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        await anext(signals)
        worker.draining = True
        print(f"{worker.name}: takes no more runs", flush=True)  # noqa: T201 - a program's word
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_when_idle, worker, scope)
            await anext(signals)
            scope.cancel()


async def _cancel_when_idle(worker: DrainingWorker, scope: anyio.CancelScope) -> None:
    # a poll that is under way may still bring a run
    await anyio.sleep(get_current_settings().worker.query_seconds)
    while worker.is_busy:  # noqa: ASYNC110 - Prefect's own state, which sets no event
        await anyio.sleep(_TICK_SECONDS)
    scope.cancel()
