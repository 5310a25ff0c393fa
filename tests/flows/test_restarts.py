"""A run whose process dies in every start comes to an end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Crashed, Failed, Scheduled

from tasks.domain.errors import GaveUpError
from tasks.restarts import MOST_CRASHES, refuse_more_starts

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import State


@flow
def conversion() -> None:
    """Something to have runs of."""


async def run_that_was(*ends: State[None]) -> UUID:
    async with get_client() as client:
        run = await client.create_flow_run(conversion)
        for end in ends:
            await client.set_flow_run_state(run.id, end, force=True)
            await client.set_flow_run_state(run.id, Scheduled(name="Restarting"), force=True)
    return run.id


def start_again(run: UUID, starts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(run))
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__NAME", "release net")
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(starts))
    refuse_more_starts()


def test_a_run_that_crashed_each_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run = asyncio.run(run_that_was(*[Crashed()] * MOST_CRASHES))

    with pytest.raises(GaveUpError, match="release net: its process died 3 times"):
        start_again(run, MOST_CRASHES + 1, monkeypatch)


def test_starts_that_a_person_asked_for_after_failures_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed: list[State[None]] = [Failed()] * 5
    refused = []
    for crashes in (MOST_CRASHES - 1, MOST_CRASHES):
        run = asyncio.run(run_that_was(*failed, *[Crashed()] * crashes))
        try:
            start_again(run, len(failed) + crashes + 1, monkeypatch)
        except GaveUpError:
            refused.append(crashes)

    assert refused == [MOST_CRASHES]
