"""The work pools' templates: each as Prefect reads it, with a GPU where there must be one."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness
from prefect.utilities.templating import apply_values

from deployments.pools import KINDS, POOLS, PoolKind, create_pools, template_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = [(pool, kind) for kind in KINDS for pool in POOLS]
SECRET = re.compile(r"secret_access_key|access_key_id|password|auth_string", re.IGNORECASE)


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


def resolved(template: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Fill a template with its defaults and ``values``, as a worker does."""
    properties = template["variables"]["properties"]
    defaults = {name: each["default"] for name, each in properties.items() if "default" in each}
    filled: dict[str, Any] = apply_values(template["job_configuration"], defaults | values)
    return filled


@pytest.mark.parametrize(("pool", "kind"), ALL)
def test_a_template_names_only_variables_that_it_declares(pool: str, kind: PoolKind) -> None:
    template = template_of(pool, kind)

    jsonschema.Draft202012Validator.check_schema(template["variables"])
    named = set(re.findall(r"\{\{ (\w+) \}\}", str(template["job_configuration"])))
    assert named == set(template["variables"]["properties"])


@pytest.mark.parametrize(("pool", "kind"), ALL)
def test_no_template_has_a_secret_in_it(pool: str, kind: PoolKind) -> None:
    assert SECRET.findall(str(template_of(pool, kind))) == []


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
@pytest.mark.parametrize("pool", POOLS)
def test_the_default_image_is_the_one_that_the_compose_file_builds(
    pool: str, kind: PoolKind
) -> None:
    assert template_of(pool, kind)["variables"]["properties"]["image"]["default"] == (
        f"onnx-conveyor:{pool}"
    )


def test_a_pod_of_the_gpu_pool_asks_for_one_gpu_and_no_other_does() -> None:
    pods = {}
    for pool in POOLS:
        job = resolved(template_of(pool, "kubernetes"), name="run")["job_manifest"]
        (pods[pool],) = job["spec"]["template"]["spec"]["containers"]

    assert pods["gpu"]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in pods["cpu"]["resources"]["limits"]
    assert pods["gpu"]["envFrom"] == [{"secretRef": {"name": "onnx-conveyor-store"}}]


def test_a_container_of_the_gpu_pool_asks_for_the_gpus_of_its_host_and_no_other_does() -> None:
    made = {
        pool: resolved(template_of(pool, "docker"))["container_create_kwargs"] for pool in POOLS
    }

    (device,) = made["gpu"]["device_requests"]
    assert device == {"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}
    assert "device_requests" not in made["cpu"]


@pytest.mark.usefixtures("server")
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
