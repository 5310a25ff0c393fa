"""The wait for a stage on another machine: it says who is missing, and it has an end."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State, StateType, WorkerStatus
from prefect.logging import get_run_logger
from prefect.states import Cancelled

from tasks.domain.errors import LostRunError, NoWorkerError
from tasks.settings import gpu_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, Worker


class Wait:
    """The wait for a run on the pool; it says who is missing, and it has an end."""

    def __init__(self, client: PrefectClient, pool: str, run: FlowRun, title: str) -> None:
        self._client = client
        self._pool = pool
        self._run = run
        self._title = title
        self._settings = gpu_settings()
        self._missing_since: float | None = None
        self._pending_since: float | None = None
        get_run_logger().info("%s: on pool '%s', run %s", title, pool, run.name)

    async def until_final(self) -> FlowRun:
        """Return the run in its final state.

        Raises:
            NoWorkerError: No worker was seen for too long.
            LostRunError: A worker took it and did not start it.
        """
        while True:
            run = await self._client.read_flow_run(self._run.id)
            kind = run.state.type if run.state else None
            if run.state and run.state.is_final():
                return run
            if kind is StateType.SCHEDULED:
                await self._look_for_workers()
            await self._look_for_a_start(kind)
            await asyncio.sleep(self._settings.poll_seconds)

    async def _look_for_workers(self) -> None:
        workers = await self._client.read_workers_for_work_pool(self._pool)
        # by the server's word, since clocks differ: three heartbeats missed make one OFFLINE
        if any(each.status is WorkerStatus.ONLINE for each in workers):
            if self._missing_since is not None:
                get_run_logger().info("%s: a worker of '%s' is there", self._title, self._pool)
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = time.monotonic()
            await self._say(self._missing(workers))
        elif time.monotonic() - self._missing_since > self._settings.patience_seconds:
            await self._cancel("No worker took it in time.")
            raise NoWorkerError(self._missing(workers, gave_up=True))

    async def _look_for_a_start(self, kind: StateType | None) -> None:
        """A worker that is stopped while it starts a run leaves it Pending for ever."""
        if kind is not StateType.PENDING:
            self._pending_since = None
        elif self._pending_since is None:
            self._pending_since = time.monotonic()
        elif time.monotonic() - self._pending_since > self._settings.start_seconds:
            await self._cancel("The worker that took it did not start it in time.")
            raise LostRunError(
                f"{self._title}: a worker of '{self._pool}' took it and did not start it within "
                f"{self._settings.start_seconds:.0f} s. Was the worker stopped? "
                f"{page_of(self._run)}"
            )

    def _missing(self, workers: list[Worker], *, gave_up: bool = False) -> str:
        last = max(
            (each for each in workers if each.last_heartbeat_time),
            key=lambda each: str(each.last_heartbeat_time),
            default=None,
        )
        seen = (
            f"the last was '{last.name}', at {last.last_heartbeat_time:%F %T} UTC" if last else ""
        )
        patience = f"{self._settings.patience_seconds:.0f} s"
        head = f"no worker was seen for {patience}" if gave_up else "no worker has been seen lately"
        then = "" if gave_up else f" It fails after {patience} without one."
        return (
            f"{self._title}: waits for a worker of the pool '{self._pool}': {head} "
            f"({seen or 'there never was one'}). Start one on a machine with a GPU: "
            f"python -m deployments.worker --pool {self._pool}.{then}"
        )

    async def _say(self, words: str) -> None:
        get_run_logger().warning(words)
        key = re.sub(r"[^a-z0-9]+", "-", f"waits {self._title}".lower()).strip("-")
        await acreate_markdown_artifact(words, key=key, description="Why nothing happens")

    async def _cancel(self, why: str) -> None:
        state: State[Any] = Cancelled(message=why)
        await self._client.set_flow_run_state(self._run.id, state, force=True)


def page_of(run: FlowRun) -> str:
    """Name a run, so that a person finds it in the UI."""
    return f"(flow run '{run.name}', {run.id})"
