"""The work pools' templates: each as Prefect reads it, with a GPU where there must be one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings
from prefect.utilities.templating import apply_values
from prefect.workers.base import BaseJobConfiguration

from deployments import secret_files
from deployments.automations import SILENCE_SECONDS
from deployments.pools import KINDS, POOLS, template_of
from deployments.tuning import RUN, START_SECONDS, PoolKind

ALL = [(pool, kind) for kind in KINDS for pool in POOLS]
SECRET = re.compile(r"secret_access_key|access_key_id|password|auth_string", re.IGNORECASE)
ROOT = Path(__file__).resolve().parents[2]
NO_MORE_RIGHTS = ("automountServiceAccountToken", "enableServiceLinks")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "deployments" / "Dockerfile").read_text()


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


def job_of(pool: str) -> dict[str, Any]:
    """Return the job of a pool's run, as the template has it."""
    job: dict[str, Any] = resolved(template_of(pool, "kubernetes"), name="run")["job_manifest"]
    return job


def worker_of(pool: str) -> dict[str, Any]:
    """Return the template of the pods of a pool's workers that run in the cluster."""
    manifests = yaml.safe_load_all((ROOT / "deployments/kubernetes/workers.yaml").read_text())
    (found,) = [m for m in manifests if m["metadata"]["name"] == f"worker-{pool}"]
    template: dict[str, Any] = found["spec"]["template"]
    return template


@pytest.mark.parametrize(("pool", "kind"), ALL)
def test_a_template_names_secrets_and_has_none(pool: str, kind: PoolKind) -> None:
    template = template_of(pool, kind)
    variables = template["variables"]["properties"]["env"].get("default", {})
    secret = {name: value for name, value in variables.items() if SECRET.search(name)}

    named = {
        match[1] for match in map(re.compile(r"\{(\w+)\}").fullmatch, secret.values()) if match
    }

    assert len(named) == len(secret) == {"process": 0, "docker": 3, "kubernetes": 1}[kind]
    variables.clear()
    assert SECRET.findall(str(template)) == []


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
@pytest.mark.parametrize("pool", POOLS)
def test_what_a_worker_knows_of_the_password_is_not_in_what_it_starts(
    pool: str, kind: PoolKind
) -> None:
    """A worker hands its own settings on, in plain words, but where the template has another."""
    configuration = BaseJobConfiguration(env=resolved(template_of(pool, kind))["env"])

    with temporary_settings({PREFECT_API_AUTH_STRING: "conveyor:very-secret"}):
        configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="a-run"))

    assert configuration.env["PREFECT_API_AUTH_STRING"] == "{SERVER_AUTH}"
    assert "very-secret" not in str(configuration.env)


@pytest.mark.parametrize("pool", POOLS)
def test_a_runs_container_gets_what_a_worker_of_the_compose_file_gets(pool: str) -> None:
    plain = re.compile(r"\$\{\w+:-([^}]*)\}")
    wanted = {name: plain.sub(r"\1", str(value)) for name, value in COMPOSE["x-client"].items()}
    wanted.pop("CONVEYOR_GPU_LOCKS")  # for workers that lend GPUs
    made = resolved(template_of(pool, "docker"))
    mounts = dict(each.split(":")[:2] for each in made["volumes"])

    assert {name: v for name, v in made["env"].items() if name in wanted} == wanted
    assert set(made["env"]) - set(wanted) == {"CONVEYOR_GPU_START_SECONDS"}  # by kind of pool
    assert mounts["onnx-conveyor_secrets"] == secret_files.FOLDER
    for name in ("cache", "keys"):
        assert mounts[f"onnx-conveyor_{name}"] == f"/{name}"
        assert name in COMPOSE["volumes"]
    assert made["networks"] == [f"{COMPOSE['name']}_default"]
    assert 'ENTRYPOINT ["python", "-m", "deployments.secret_files"]' in DOCKERFILE


@pytest.mark.parametrize("pool", POOLS)
def test_a_runs_pod_is_as_its_pools_workers_are(pool: str) -> None:
    run, worker = job_of(pool)["spec"]["template"], worker_of(pool)
    (ours,), (theirs,) = run["spec"]["containers"], worker["spec"]["containers"]

    assert run["metadata"]["labels"].items() <= worker["metadata"]["labels"].items()
    assert run["spec"]["restartPolicy"] == "Never"
    for name in ("securityContext", "tolerations", "volumes", *NO_MORE_RIGHTS):
        assert run["spec"].get(name) == worker["spec"].get(name), name
    for name in ("securityContext", "volumeMounts", "envFrom"):
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize("pool", POOLS)
def test_a_runs_pod_is_let_through_to_the_server(pool: str) -> None:
    policies = yaml.safe_load_all((ROOT / "deployments/kubernetes/network.yaml").read_text())
    (policy,) = [each for each in policies if each["metadata"]["name"] == "prefect-server"]
    ((source,),) = [rule["from"] for rule in policy["spec"]["ingress"]]
    job = job_of(pool)

    for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
        assert source["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("pool", POOLS)
def test_a_runs_job_keeps_to_the_schema_of_kubernetes(pool: str) -> None:
    job = job_of(pool)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    # as Prefect's worker fills them in
    container["env"] = [{"name": n, "value": v} for n, v in container["env"].items()]
    container["args"] = ["prefect", "flow-run", "execute"]

    for version in list(dict.fromkeys(all_versions()))[-4:]:
        kubernetes_validate.validate(job, version, strict=True)


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
        (pods[pool],) = job_of(pool)["spec"]["template"]["spec"]["containers"]

    assert pods["gpu"]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in pods["cpu"]["resources"]["limits"]


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

    assert given.items() >= RUN.items()
    assert 3 * int(given["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) <= SILENCE_SECONDS


def test_kubernetes_is_given_more_time_to_start_a_run_than_it_waits_for_a_pod() -> None:
    properties = template_of("gpu", "kubernetes")["variables"]["properties"]

    assert START_SECONDS["kubernetes"] > properties["pod_watch_timeout_seconds"]["default"]
    assert properties["env"]["default"]["CONVEYOR_GPU_START_SECONDS"] == "1200"
