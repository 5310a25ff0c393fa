"""A Prefect process worker that ends without losing what it runs.

Started as ``python -m deployments.worker --pool cpu``. On SIGTERM or SIGINT it takes no more
runs and waits for those it has, at most ``--grace`` seconds; what still runs then is ended and
set to Crashed, so that the server starts it again elsewhere (``deployments.automations``).
Prefect's own worker leaves its runs Running for ever when it is stopped (seen on 3.8.8;
https://github.com/PrefectHQ/prefect/issues/22528).
"""

from __future__ import annotations

import argparse
import os
import signal
from typing import TYPE_CHECKING

import anyio
import psutil
from prefect.types._datetime import now
from prefect.workers.process import ProcessWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import WorkerFlowRunResponse

_ENDING_SECONDS = 15.0
"""How long a run may take to end after SIGTERM, and the worker to report it."""
_TICK_SECONDS = 0.1


class DrainingWorker(ProcessWorker):
    """A process worker that can be told to take no more runs."""

    type = "process"
    _draining = False

    def drain(self) -> None:
        """Take no more runs; those under way go on."""
        self._draining = True

    @property
    def runs(self) -> int:
        """How many runs it has."""
        return int(self.limiter.borrowed_tokens)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take the runs that are due, unless it is draining."""
        if self._draining:
            self._last_polled_time = now("UTC")  # it is well: its health check goes by this
            return []
        return await super().get_and_submit_flow_runs()

    async def _submit_scheduled_flow_runs(
        self, flow_run_response: list[WorkerFlowRunResponse]
    ) -> list[FlowRun]:
        """Leave for the next poll a run that starts again before its first start is cleared away.

        Prefect 3.8.8 borrows its place a second time, at which the whole worker dies ("this
        borrower is already holding one of this CapacityLimiter's tokens").
        """
        held = self.limiter.statistics().borrowers
        free = [each for each in flow_run_response if each.flow_run.id not in held]
        return await super()._submit_scheduled_flow_runs(free)


async def work(worker: DrainingWorker, grace_seconds: float, *, healthcheck: bool) -> None:
    """Run ``worker`` until a signal comes, then drain it.

    Args:
        worker: The worker, not started.
        grace_seconds: How long its runs may go on after the signal.
        healthcheck: Whether it answers ``/health`` on port 8080.
    """
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: worker.start(with_healthcheck=healthcheck))
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
            worker.drain()
            await _finish(worker, grace_seconds)
        group.cancel_scope.cancel()


async def _finish(worker: DrainingWorker, grace_seconds: float) -> None:
    if await _idle_within(worker, grace_seconds):
        return
    _end_runs()
    await _idle_within(worker, _ENDING_SECONDS)


async def _idle_within(worker: DrainingWorker, seconds: float) -> bool:
    """Wait for the worker's runs to end; return whether they have."""
    with anyio.move_on_after(seconds):
        while worker.runs:  # noqa: ASYNC110 - the limiter has no event for it
            await anyio.sleep(_TICK_SECONDS)
    return not worker.runs


def _end_runs() -> None:
    """Tell the runs' own processes to end; they tell the server that they are Crashed."""
    for child in psutil.Process(os.getpid()).children():
        child.terminate()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and work."""
    parser = argparse.ArgumentParser(prog="deployments.worker", description=__doc__)
    parser.add_argument("--pool", required=True, help="the work pool whose runs it takes")
    parser.add_argument("--work-queue", action="append", help="take runs of this queue alone")
    parser.add_argument("--name", help="what the server calls it")
    parser.add_argument("--limit", type=int, default=2, help="runs at the same time (default: 2)")
    parser.add_argument(
        "--grace",
        type=float,
        default=1_700,
        help="seconds that its runs may go on once it is told to stop (default: 1700)",
    )
    parser.add_argument("--with-healthcheck", action="store_true", help="answer /health on 8080")
    options = parser.parse_args(arguments)
    worker = DrainingWorker(
        name=options.name,
        work_pool_name=options.pool,
        work_queues=options.work_queue,
        limit=options.limit,
        create_pool_if_not_found=False,
    )
    anyio.run(lambda: work(worker, options.grace, healthcheck=options.with_healthcheck))


if __name__ == "__main__":
    main()
