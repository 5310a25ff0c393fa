"""A Prefect process worker that ends without losing what it runs.

On SIGTERM or SIGINT it takes no more runs and waits for those it has, for a while; what still
runs then, or at a second signal, is ended and says that it is Crashed, so that the server starts
it again elsewhere (``deployments.automations``). Prefect's own worker leaves its runs Running
for ever when it is stopped (seen on 3.8.8; https://github.com/PrefectHQ/prefect/issues/22528).
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import anyio
import psutil
from prefect.types._datetime import now
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

if TYPE_CHECKING:
    from uuid import UUID

    from anyio.abc import TaskStatus
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import WorkerFlowRunResponse

_ENDING_SECONDS = 15.0
"""How long a run may take to end after SIGTERM, and the worker to report it."""
_TICK_SECONDS = 0.1


class DrainingWorker(ProcessWorker):
    """A process worker that can be told to take no more runs."""

    type = "process-draining"

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - Prefect's own
        super().__init__(*arguments, **options)
        self._draining = False
        self._polls = False
        self._runs: set[UUID] = set()

    def drain(self) -> None:
        """Take no more runs; those under way go on."""
        self._draining = True

    @property
    def is_busy(self) -> bool:
        """Whether it has runs, starts one, or asks for some at this moment."""
        return bool(self._held or self._submitting_flow_run_ids or self._polls)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take the runs that are due, unless it is draining."""
        if self._draining:
            self._last_polled_time = now("UTC")  # it is well: its health check goes by this
            return []
        self._polls = True
        try:
            return await super().get_and_submit_flow_runs()
        finally:
            self._polls = False

    async def _submit_scheduled_flow_runs(
        self, flow_run_response: list[WorkerFlowRunResponse]
    ) -> list[FlowRun]:
        """Leave for the next poll a run that starts again before its first start is cleared away.

        Prefect 3.8.8 borrows its place a second time, at which the whole worker dies ("this
        borrower is already holding one of this CapacityLimiter's tokens").
        """
        free = [each for each in flow_run_response if each.flow_run.id not in self._held]
        return await super()._submit_scheduled_flow_runs(free)

    @property
    def _held(self) -> set[UUID]:
        """The runs that it has, up to their last words."""
        # by the limiter's own account, where it has one: it lets go of a run later than `run`
        borrowers: Any = self._limiter.statistics().borrowers if self._limiter else ()
        return self._runs.union(borrowers)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Run ``flow_run`` in a process, and know that it runs."""
        self._runs.add(flow_run.id)
        try:
            return await super().run(flow_run, configuration, task_status)
        finally:
            self._runs.discard(flow_run.id)

    async def _propose_crashed_state(
        self, flow_run: FlowRun, message: str, client: PrefectClient | None = None
    ) -> None:
        """Say that a run's process has died, unless that is said already.

        Prefect 3.8.8 says it twice. Between the two the server starts the run again, and the
        second word would crash it in the hands of the worker that has just taken it.
        """
        try:
            there = await (client or self.client).read_flow_run(flow_run.id)
        except Exception:  # noqa: BLE001 - then its silence tells it (deployments.automations)
            return
        state, starts = there.state, there.run_count - flow_run.run_count
        began = bool(state and state.is_running()) and starts == 1
        begins = bool(state and state.is_pending()) and starts == 0
        if began or begins:
            await super()._propose_crashed_state(flow_run, message, client)


# of the pools that it works for; in Prefect's table of workers, this word is the parent's
DrainingWorker.type = "process"


async def work(worker: DrainingWorker, grace_seconds: float, *, healthcheck: bool = False) -> None:
    """Run ``worker`` until a signal comes, then drain it.

    Args:
        worker: The worker, not started.
        grace_seconds: How long its runs may go on after the signal.
        healthcheck: Whether it answers ``/health`` on port 8080.
    """
    async with anyio.create_task_group() as group:
        group.start_soon(_end_at_a_signal, worker, grace_seconds, group.cancel_scope)
        await worker.start(with_healthcheck=healthcheck)
        group.cancel_scope.cancel()


async def _end_at_a_signal(
    worker: DrainingWorker, grace_seconds: float, scope: anyio.CancelScope
) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        await anext(signals)
        worker.drain()
        print(f"{worker.name}: takes no more runs", flush=True)  # noqa: T201 - a program's word
        async with anyio.create_task_group() as group:
            group.start_soon(_wait_until_idle, worker, grace_seconds, group.cancel_scope)
            await anext(signals)
            group.cancel_scope.cancel()
    if worker.is_busy:
        _end_runs()
        await _wait_until_idle(worker, _ENDING_SECONDS)
    scope.cancel()


async def _wait_until_idle(
    worker: DrainingWorker, seconds: float, then: anyio.CancelScope | None = None
) -> None:
    with anyio.move_on_after(seconds):
        while worker.is_busy:  # noqa: ASYNC110 - Prefect's own state, which sets no event
            await anyio.sleep(_TICK_SECONDS)
    if then:
        then.cancel()


def _end_runs() -> None:
    """Tell the runs' own processes to end; they tell the server that they are Crashed."""
    for child in psutil.Process(os.getpid()).children():
        child.terminate()
