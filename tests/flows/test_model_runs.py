"""Which runs a catalogue run finds under way, and what it asks the server for that."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed, Running, Scheduled

from flows.model_runs import UnderWay, join_or_start
from flows.release_model import release_model

if TYPE_CHECKING:
    from uuid import UUID

    import httpx
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State


AN_HOUR = 3_600.0


async def make(
    client: PrefectClient, model: str, state: State, *, name: str | None = None, force: bool = False
) -> UUID:
    parameters = {"model": model, "force": force}
    made = await client.create_flow_run(
        release_model, name=name, parameters=parameters, state=state
    )
    return made.id


def count_lists(client: PrefectClient) -> list[str]:
    """Return a list that grows by each list of runs that the client asks for."""
    asked: list[str] = []

    async def note(request: httpx.Request) -> None:
        if request.url.path.endswith("/flow_runs/filter"):
            asked.append(str(request.url))

    client._client.event_hooks["request"].append(note)
    return asked


def test_many_models_that_are_started_at_once_ask_for_one_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.model_runs._MOMENT_SECONDS", AN_HOUR)
    models = [f"many-{os.urandom(4).hex()}" for _ in range(20)]

    async def ask() -> tuple[list[UUID | None], UUID, int]:
        async with get_client() as client:
            wanted = await make(client, models[3], Running())
            await make(client, models[4], Completed())
            asked, under_way = count_lists(client), UnderWay()
            found = await asyncio.gather(
                *(under_way.find(client, model, force=False) for model in models)
            )
            pages = len(asked)
            assert await under_way.find(client, models[0], force=False) is None
            assert len(asked) == pages
            return [run.id if run else None for run in found], wanted, pages

    found, wanted, pages = asyncio.run(ask())

    assert found == [None] * 3 + [wanted] + [None] * 16
    assert pages <= 2, "a page with what is there, and perhaps an empty one after it"


def test_a_run_that_is_asked_for_later_is_found_a_moment_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.model_runs._MOMENT_SECONDS", AN_HOUR)
    model = f"later-{os.urandom(4).hex()}"

    async def ask() -> tuple[list[UUID | None], UUID]:
        async with get_client() as client:
            under_way = UnderWay()
            before = await under_way.find(client, model, force=False)
            wanted = await make(client, model, Scheduled())
            at_once = await under_way.find(client, model, force=False)
            monkeypatch.setattr("flows.model_runs._MOMENT_SECONDS", 0)
            after = await under_way.find(client, model, force=False)
            return [run.id if run else None for run in (before, at_once, after)], wanted

    found, wanted = asyncio.run(ask())

    assert found == [None, None, wanted]


def test_a_run_that_another_catalogue_has_just_started_is_joined_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Although it is younger than the list that this one goes by."""
    monkeypatch.setattr("flows.model_runs._MOMENT_SECONDS", AN_HOUR)
    model = f"joined-{os.urandom(4).hex()}"

    async def ask() -> tuple[UUID, UUID]:
        async with get_client() as client:
            under_way = UnderWay()
            assert await under_way.find(client, model, force=False) is None
            wanted = await make(client, model, Running(), name=f"release {model}")
            joined = await join_or_start(client, model, "a-catalogue", under_way, force=False)
            return joined.id, wanted

    joined, wanted = asyncio.run(ask())

    assert joined == wanted


def test_a_run_that_has_failed_since_it_was_listed_is_not_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.model_runs._MOMENT_SECONDS", AN_HOUR)
    model = f"failed-{os.urandom(4).hex()}"

    async def ask() -> None:
        async with get_client() as client:
            under_way = UnderWay()
            run = await make(client, model, Running())
            assert await under_way.find(client, model, force=False) is not None
            await client.set_flow_run_state(run, Failed(), force=True)
            await join_or_start(client, model, "a-catalogue", under_way, force=False)

    with pytest.raises(ObjectNotFound):  # of the deployment: it goes to start a run, as it should
        asyncio.run(ask())


def test_a_run_that_may_do_nothing_is_not_taken_for_one_that_is_forced() -> None:
    model = f"forced-{os.urandom(4).hex()}"

    async def ask() -> tuple[UUID | None, UUID]:
        async with get_client() as client:
            await make(client, model, Running())
            forced = await make(client, model, Running(), force=True)
            found = await UnderWay().find(client, model, force=True)
            return found.id if found else None, forced

    found, forced = asyncio.run(ask())

    assert found == forced
