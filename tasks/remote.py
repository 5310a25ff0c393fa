"""A stage on a GPU worker: one typed call, behind which a deployment does the work.

::

    caller  ─ on_gpu(stage, request) ─▶ files and request ─▶ a run of `gpu-stage`, pool `gpu`
            ◀───────── reply ─────────  work/<caller's run>/…  ◀─ perform_stage ─┘

- Values are checked where they arrive; Prefect itself gives back bare dicts, or nothing.
- Files travel through the bucket, in the caller's own folder ``work/<run>/``, and go with it.
- An error comes back as its class in ``tasks.domain.errors``, with its whole message.
- A caller that is restarted asks for the same work by the same key, and so finds the run that
  it had started, be it under way or done; a run that ended badly is followed by a new one.
- While no worker of the pool is seen, that is said in log and UI; after a stated time it fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import State, StateType, WorkerStatus
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Cancelled
from pydantic import ValidationError

from tasks.domain import errors
from tasks.domain.artifact import StoredTree
from tasks.domain.errors import (
    ArtifactNotFoundError,
    ConfigurationError,
    LostRunError,
    NoWorkerError,
    ReleaseError,
    RemoteError,
)
from tasks.domain.value import Value
from tasks.runtime import workshop
from tasks.settings import gpu_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect.client.schemas.objects import FlowRun, Worker

    from tasks.runtime import Workshop

Request = TypeVar("Request", bound=Value)
Answer = TypeVar("Answer", bound=Value)

DEPLOYMENT = "gpu-stage/default"

_MOST_RUNS = 20
"""Runs of one piece of work that a caller looks through before it gives up; each ended badly."""
_RAISED = re.compile(r"(?:Flow run encountered an exception: )?(\w+): (.*)", re.DOTALL)
"""How Prefect words the message of a state that an exception made."""


@dataclass(frozen=True)
class GpuStage(Generic[Request, Answer]):
    """A function that GPU workers offer; see ``gpu_stage``."""

    function: Callable[[Request], Answer]

    @property
    def name(self) -> str:
        """``module:name``, by which a worker finds it."""
        return f"{self.function.__module__}:{self.function.__name__}"

    @property
    def types(self) -> tuple[type[Request], type[Answer]]:
        """The types of request and answer."""
        hints = get_type_hints(self.function)
        return hints["request"], hints["return"]


def gpu_stage(function: Callable[[Request], Answer]) -> GpuStage[Request, Answer]:
    """Offer a module-level function of one ``request`` on GPU workers; nothing else is called."""
    return GpuStage(function)


def on_gpu(stage: GpuStage[Request, Answer], request: Request, title: str) -> Answer:
    """Run ``stage`` on a GPU worker and wait for its answer.

    Args:
        stage: What to run.
        request: Its request; the files that it names are sent along.
        title: What people see: the run's name, and the first words of an error.

    Raises:
        ReleaseError: As the stage raised it.
        GpuUnavailableError: The worker that took it has no GPU for it.
        NoWorkerError: No worker was seen for ``CONVEYOR_GPU_PATIENCE_SECONDS``.
        LostRunError: Its run crashed, or did not start; worth another try.
        RemoteError: Its run was cancelled, or gave no sound answer.
        ConfigurationError: There is no deployment of GPU stages.
        StorageError: Its files could not be shared.
    """
    shop = workshop()
    for tree in trees_in(request):
        shop.share(tree)
    shop.adopt()
    text = request.model_dump_json()
    digest = hashlib.sha256(f"{stage.name} {text}".encode()).hexdigest()
    parameters = {
        "title": title,
        "stage": stage.name,
        "request": json.loads(text),
        "owner": shop.run,
    }
    run = asyncio.run(_finish(shop, title, parameters, f"{shop.run}:{digest[:32]}"))
    answer = _answer(shop, run, title, stage.types[1])
    shop.adopt(*trees_in(answer))
    return answer


def trees_in(value: object) -> Iterator[StoredTree]:
    """Yield every ``StoredTree`` that a value holds, however deep."""
    if isinstance(value, StoredTree):
        yield value
    elif isinstance(value, Value):
        for name in type(value).model_fields:
            yield from trees_in(getattr(value, name))
    elif isinstance(value, tuple):
        for each in value:
            yield from trees_in(each)
    elif isinstance(value, dict):
        yield from trees_in(tuple(value.values()))


async def _finish(shop: Workshop, title: str, parameters: dict[str, Any], key: str) -> FlowRun:
    """Return the run of this work in its final state; find it, or start it."""
    async with get_client() as client:
        try:
            deployment = await client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            message = (
                f"{title}: there is no deployment '{DEPLOYMENT}'. Declare all of them: "
                "python -m deployments.bootstrap"
            )
            raise ConfigurationError(message) from None
        for number in range(_MOST_RUNS):
            run = await arun_deployment(
                deployment.id,
                client=client,
                parameters=parameters,
                flow_run_name=title,
                timeout=0,
                idempotency_key=f"{key}:{number}",
            )
            if not _is_of_no_use(shop, run):
                wait = _Wait(client, deployment.work_pool_name or "", run, title)
                return await wait.until_final()
    message = f"{title}: {_MOST_RUNS} runs of it ended badly. Look at them in Prefect's UI."
    raise RemoteError(message)


def _is_of_no_use(shop: Workshop, run: FlowRun) -> bool:
    """Whether a run that was found, and so was started earlier, ended without an answer."""
    state = run.state
    if state is None or not state.is_final():
        return False
    return not state.is_completed() or _reply(shop, run) is None


class _Wait:
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
            message = (
                f"{self._title}: a worker of '{self._pool}' took it and did not start it within "
                f"{self._settings.start_seconds:.0f} s. Was the worker stopped? {_page(self._run)}"
            )
            raise LostRunError(message)

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


def _answer(shop: Workshop, run: FlowRun, title: str, kind: type[Answer]) -> Answer:
    """Return the answer of a run that has ended, or raise what it raised."""
    state = run.state
    assert state is not None  # noqa: S101 - it was waited for
    if not state.is_completed():
        raise _error_of(run, state, title)
    text = _reply(shop, run)
    if text is None:
        message = f"{title}: its run completed, and its reply is not in the bucket. {_page(run)}"
        raise LostRunError(message)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = (
            f"{title}: the reply is not a {kind.__name__} ({'.'.join(map(str, first['loc']))}: "
            f"{first['msg']}). Does the worker run the same version of the code?"
        )
        raise RemoteError(message) from error


def _error_of(run: FlowRun, state: State[Any], title: str) -> ReleaseError:
    words = state.message or ""
    if state.is_crashed():
        return LostRunError(f"{title}: its run crashed: {words} {_page(run)}")
    if state.is_cancelled():
        return RemoteError(f"{title}: its run was cancelled. {words} {_page(run)}")
    raised = _RAISED.fullmatch(words)
    kind = getattr(errors, raised.group(1), None) if raised else None
    if raised and isinstance(kind, type) and issubclass(kind, ReleaseError):
        return kind(raised.group(2))
    return RemoteError(f"{title}: its run failed: {words} {_page(run)}")


def _reply(shop: Workshop, run: FlowRun) -> bytes | None:
    try:
        return shop.store.read(reply_key(shop, str(run.id))).content
    except ArtifactNotFoundError:
        return None


def reply_key(shop: Workshop, run: str) -> str:
    """Return where the run of a stage leaves its reply."""
    return f"{shop.prefix}replies/{run}.json"


def _page(run: FlowRun) -> str:
    return f"(flow run '{run.name}', {run.id})"
