"""The work pools on a real server, which other tests use too: its pools are not kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client

from deployments.pools import POOLS, create_pools, template_of

if TYPE_CHECKING:
    from collections.abc import Iterator


async def remove_pools() -> None:
    async with get_client() as client:
        for each in await client.read_work_pools():
            if each.name in POOLS:
                await client.delete_work_pool(each.name)


@pytest.fixture
def no_pools() -> Iterator[None]:
    asyncio.run(remove_pools())
    yield
    asyncio.run(remove_pools())


@pytest.mark.usefixtures("no_pools")
def test_pools_are_created_once_brought_up_to_date_and_never_turned_into_another_kind() -> None:
    async def run() -> tuple[list[str], dict[str, Any], str]:
        async with get_client() as client:
            await create_pools(client, "kubernetes")
            await create_pools(client, "kubernetes")
            found = await client.read_work_pools()
            gpu = await client.read_work_pool("gpu")
            with pytest.raises(SystemExit) as refused:
                await create_pools(client, "docker")
        kinds = [f"{each.name} {each.type}" for each in found]
        return sorted(kinds), gpu.base_job_template, str(refused.value)

    kinds, template, refusal = asyncio.run(run())

    assert kinds == ["cpu kubernetes", "gpu kubernetes"]
    assert template == template_of("gpu", "kubernetes")
    assert "expected docker, got kubernetes" in refusal
