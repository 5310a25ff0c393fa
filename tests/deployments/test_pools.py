"""The work pools' templates: each as Prefect reads it, with a GPU where there must be one."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
from prefect.utilities.templating import apply_values

from deployments.automations import SILENCE_SECONDS
from deployments.pools import KINDS, POOLS, template_of
from deployments.run_settings import RUN_VARIABLES, START_SECONDS, PoolKind

ALL = [(pool, kind) for kind in KINDS for pool in POOLS]
SECRET = re.compile(r"secret_access_key|access_key_id|password|auth_string", re.IGNORECASE)


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


@pytest.mark.parametrize(("pool", "kind"), ALL)
def test_every_run_sends_heartbeats_often_enough_whoever_started_its_worker(
    pool: str, kind: PoolKind
) -> None:
    given = template_of(pool, kind)["variables"]["properties"]["env"]["default"]

    assert given.items() >= RUN_VARIABLES.items()
    assert 3 * int(given["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) <= SILENCE_SECONDS


def test_kubernetes_is_given_more_time_to_start_a_run_than_it_waits_for_a_pod() -> None:
    properties = template_of("gpu", "kubernetes")["variables"]["properties"]

    assert START_SECONDS["kubernetes"] > properties["pod_watch_timeout_seconds"]["default"]
    assert properties["env"]["default"]["CONVEYOR_GPU_START_SECONDS"] == "1200"
