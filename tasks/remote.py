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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from tasks.domain import errors
from tasks.domain.errors import (
    ArtifactNotFoundError,
    ConfigurationError,
    LostRunError,
    ReleaseError,
    RemoteError,
)
from tasks.domain.value import Value
from tasks.runtime import workshop
from tasks.trees import content_of, trees_in
from tasks.waiting import Wait, page_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

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
    digest = hashlib.sha256(f"{stage.name} {content_of(request)}".encode()).hexdigest()
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
        earlier = await _earlier_runs(client, key)
        of_use = [run for run in earlier if not _is_of_no_use(shop, run)]
        if not of_use and len(earlier) == _MOST_RUNS:
            raise RemoteError(
                f"{title}: {_MOST_RUNS} runs of it ended badly. Look at them in Prefect's UI."
            )
        if of_use:
            run = of_use[0]
        else:
            run = await arun_deployment(
                deployment.id,
                client=client,
                parameters=parameters,
                flow_run_name=title,
                timeout=0,
                idempotency_key=f"{key}:{len(earlier)}",
            )
        return await Wait(client, deployment.work_pool_name or "", run, title).until_final()


async def _earlier_runs(client: PrefectClient, key: str) -> list[FlowRun]:
    """Return the runs of this work that an earlier try has started."""
    keys = [f"{key}:{number}" for number in range(_MOST_RUNS)]
    mine = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=keys))
    return await client.read_flow_runs(flow_run_filter=mine, limit=_MOST_RUNS)


def _is_of_no_use(shop: Workshop, run: FlowRun) -> bool:
    """Whether a run that was found, and so was started earlier, ended without an answer."""
    state = run.state
    if state is None or not state.is_final():
        return False
    return not state.is_completed() or _reply(shop, run) is None


def _answer(shop: Workshop, run: FlowRun, title: str, kind: type[Answer]) -> Answer:
    """Return the answer of a run that has ended, or raise what it raised."""
    state = run.state
    assert state is not None  # noqa: S101 - it was waited for
    if not state.is_completed():
        raise _error_of(run, state, title)
    text = _reply(shop, run)
    if text is None:
        message = f"{title}: its run completed, and its reply is not in the bucket. {page_of(run)}"
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
        return LostRunError(f"{title}: its run crashed: {words} {page_of(run)}")
    if state.is_cancelled():
        return RemoteError(f"{title}: its run was cancelled. {words} {page_of(run)}")
    raised = _RAISED.fullmatch(words)
    kind = getattr(errors, raised.group(1), None) if raised else None
    if raised and isinstance(kind, type) and issubclass(kind, ReleaseError):
        return kind(raised.group(2))
    return RemoteError(f"{title}: its run failed: {words} {page_of(run)}")


def _reply(shop: Workshop, run: FlowRun) -> bytes | None:
    try:
        return shop.store.read(reply_key(shop, str(run.id))).content
    except ArtifactNotFoundError:
        return None


def reply_key(shop: Workshop, run: str) -> str:
    """Return where the run of a stage leaves its reply."""
    return f"{shop.prefix}replies/{run}.json"
