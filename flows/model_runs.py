"""Runs of ``release-model`` for others: found or started, and waited for.

Whoever wants a model released while a run of it is under way gets that run: no model is made
twice at the same time. Two who ask at once start one run, since both ask by the same key, which
names the run before.
"""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import arun_deployment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

DEPLOYMENT = "release-model/default"

_POLL_SECONDS = 2.0
_LOOKS_A_SECOND = 20.0
"""At most, by one catalogue run: each costs the server several ms (docs/machines/measured.md)."""
_MOMENT_SECONDS = 2.0
_PAGE = 200
_SOON = timedelta(minutes=1)
_LONGEST = timedelta(days=7)
"""How long ago a run may have been due that is still under way."""
_AGAIN_SECONDS = 20.0
"""After how long a crashed run is not started again by the server (``deployments.automations``),
which does so within a second or two."""
_MAY_BE_UNDER_WAY = [
    StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING,
    StateType.PAUSED, StateType.CRASHED,
]  # fmt: skip


def tag_of(catalogue_run: str) -> str:
    """Return the tag of the runs that a catalogue run has started."""
    return f"catalogue-{catalogue_run}"


async def started_by(client: PrefectClient, catalogue_run: str) -> dict[str, FlowRun]:
    """Return by model the last run that a catalogue run started, before it was interrupted."""
    mine = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag_of(catalogue_run)]))
    return {_model(run): run async for run in _runs(client, mine)}


class UnderWay:
    """The runs of ``release-model`` that may be under way, as the server told them a moment ago.

    To be shared by all models of a catalogue run: with 200 of them at once, a list for each one
    that is started would cost the server 70 ms of CPU (docs/machines/measured.md).
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._runs: list[FlowRun] = []
        self._asked = -math.inf
        self._asking = asyncio.Lock()

    async def find(self, client: PrefectClient, model: str, *, force: bool) -> FlowRun | None:
        """Return the run of ``model`` that is under way, by its parameters."""
        for run in await self._listed(client):
            if _releases(run, model, force=force):
                as_it_is_now = await client.read_flow_run(run.id)
                if _releases(as_it_is_now, model, force=force):
                    return as_it_is_now
        return None

    async def _listed(self, client: PrefectClient) -> list[FlowRun]:
        """Return a list that was begun no longer than a moment before it is asked for here."""
        came = time.monotonic()
        async with self._asking:
            if self._asked < came - _MOMENT_SECONDS:
                asked = time.monotonic()
                states = FlowRunFilterState(type=FlowRunFilterStateType(any_=_MAY_BE_UNDER_WAY))
                wanted = FlowRunFilter(state=states, expected_start_time=_due(since=_LONGEST))
                self._runs = [run async for run in _runs(client, wanted)]
                self._asked = asked
            return self._runs


async def join_or_start(
    client: PrefectClient, model: str, catalogue_run: str, under_way: UnderWay, *, force: bool
) -> FlowRun:
    """Return the run of ``model`` that is under way, or a new one."""
    # one that was started by hand has its model in its name only once it has begun
    if found := await under_way.find(client, model, force=force):
        return found
    name = FlowRunFilterName(any_=[f"release {model}"])
    last = await client.read_flow_runs(
        # however old: whoever forgets it asks by a key again, and gets the run of that time
        flow_run_filter=FlowRunFilter(name=name, expected_start_time=_due(since=None)),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    if last and _releases(last[0], model, force=force):
        return last[0]
    before = str(last[0].id) if last else "none"
    return await arun_deployment(
        DEPLOYMENT,
        client=client,
        parameters={"model": model, "force": force},
        flow_run_name=f"release {model}",
        tags=[tag_of(catalogue_run)],
        idempotency_key=f"release {model} {force} after {before}",
        timeout=0,
    )


def _due(since: timedelta | None) -> FlowRunFilterExpectedStartTime:
    """Leave out what somebody has planned for next week, and what was due before ``since``."""
    now = datetime.now(UTC)
    after = now - since if since else None
    return FlowRunFilterExpectedStartTime(before_=now + _SOON, after_=after)


async def _runs(client: PrefectClient, wanted: FlowRunFilter) -> AsyncIterator[FlowRun]:
    """Yield the runs of ``release-model`` that fit, the oldest first."""
    flow = FlowFilter(name=FlowFilterName(any_=[DEPLOYMENT.partition("/")[0]]))
    offset = 0
    while page := await client.read_flow_runs(
        flow_filter=flow,
        flow_run_filter=wanted,
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=_PAGE,
        offset=offset,
    ):
        for run in page:
            yield run
        offset += len(page)


def _model(run: FlowRun) -> str:
    return str(run.parameters.get("model"))


def _releases(run: FlowRun, model: str, *, force: bool) -> bool:
    """Whether a run is under way that does what is asked for."""
    # a run that may end as "Up to date" does not do what `force` asks for
    does_it = bool(run.parameters.get("force")) or not force
    return _model(run) == model and does_it and _is_under_way(run)


def _is_under_way(run: FlowRun) -> bool:
    due = run.expected_start_time
    if run.state is None or (due and due < datetime.now(UTC) - _LONGEST):
        return False
    if run.state.is_crashed():
        return run.state.timestamp > datetime.now(UTC) - timedelta(seconds=_AGAIN_SECONDS)
    return not run.state.is_final()


def seconds_between_looks(at_once: int) -> float:
    """Return how often to look at each of so many runs, so that all of them bear it."""
    return max(_POLL_SECONDS, at_once / _LOOKS_A_SECOND)


async def ended(client: PrefectClient, run: UUID, every: float = _POLL_SECONDS) -> FlowRun:
    """Return the run in its final state, once it has one.

    Crashed is one only if the server does not start the run again.

    Args:
        client: Of the server.
        run: Which.
        every: Seconds between two looks.
    """
    crashed_at: float | None = None
    while True:
        found = await client.read_flow_run(run)
        state = found.state
        if state is None or not state.is_crashed():
            crashed_at = None
            if state and state.is_final():
                return found
        elif crashed_at is None:
            crashed_at = time.monotonic()
        elif time.monotonic() - crashed_at > _AGAIN_SECONDS:
            return found
        await asyncio.sleep(every)
