"""The compose file, read by the real Compose; no engine is needed for that."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import Settings
from prefect.settings.legacy import _get_settings_fields
from prefect_redis.cleanup_queue import RedisWorkerCleanupQueueSettings
from prefect_redis.client import RedisMessagingSettings

from deployments import secret_files
from deployments.pools import POOLS
from tasks.settings import GpuSettings, LocalSettings, StoreSettings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = Path(sys.executable).with_name("docker-compose")
DOCKERFILE = (ROOT / "deployments" / "Dockerfile").read_text()
IN_CONTAINER = "/run/secrets/"
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if line and not line.startswith("#")
)


def compose(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMPOSE), "-f", str(ROOT / "docker-compose.yml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """Return the file as Compose understands it, with every profile."""
    done = compose("--profile", "*", "config")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = yaml.safe_load(done.stdout)
    return document


@pytest.fixture(scope="module")
def resolved(whole: dict[str, Any]) -> dict[str, Any]:
    services: dict[str, Any] = whole["services"]
    return services


def secrets_of(service: dict[str, Any]) -> set[str]:
    return {each["source"] for each in service.get("secrets", [])}


def test_compose_accepts_the_file() -> None:
    done = compose("config", "--quiet")

    assert (done.returncode, done.stderr) == (0, "")


def test_every_secret_is_a_file_that_the_set_up_makes(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    made = secret_files.make(tmp_path)

    assert set(made) == set(whole["secrets"])
    assert {Path(each["file"]).name for each in whole["secrets"].values()} == set(made)
    assert {Path(each["file"]).parent for each in whole["secrets"].values()} == {ROOT / ".secrets"}


def test_the_folder_of_the_secrets_can_be_another(tmp_path: Path) -> None:
    done = compose("config", SECRETS=str(tmp_path))

    files = [Path(each["file"]) for each in yaml.safe_load(done.stdout)["secrets"].values()]
    assert {file.parent for file in files} == {tmp_path}


def test_no_variable_holds_a_secret_but_names_its_file(resolved: dict[str, Any]) -> None:
    secret = re.compile("PASSWORD|SECRET|AUTH_STRING|ACCESS_KEY_ID|ROOT_USER|REDIS.*URL|DOCKET")
    found = [
        value
        for service in resolved.values()
        for name, value in (service.get("environment") or {}).items()
        if secret.search(name)
    ]

    assert len(found) > 10
    for value in found:
        assert re.search(r"\{[A-Z0-9_]+\}", value) or value.startswith(IN_CONTAINER), value


def test_a_service_gets_the_secrets_that_it_names_and_no_other(resolved: dict[str, Any]) -> None:
    for name, service in resolved.items():
        words = [*(service.get("environment") or {}).values(), *(service.get("command") or [])]
        text = "\n".join(map(str, words))
        named = re.findall(r"\{([A-Z0-9_]+)\}", text) + re.findall(r"/run/secrets/(\w+)", text)

        assert set(named) == secrets_of(service), name


def test_workers_get_neither_the_databases_secrets_nor_the_stores_owner(
    resolved: dict[str, Any],
) -> None:
    workers = [service for name, service in resolved.items() if name.startswith("worker")]

    assert len(workers) == 3
    for worker in workers:
        assert secrets_of(worker) == {"SERVER_AUTH", "S3_WORKER_KEY_ID", "S3_WORKER_SECRET"}
        assert set(worker["networks"]) == {"default"}


def test_the_workers_user_is_made_by_the_stores_own_client_with_the_shipped_policy(
    whole: dict[str, Any],
) -> None:
    services = whole["services"]
    maker = services["s3-user"]
    files = {each["target"]: whole["configs"][each["source"]]["file"] for each in maker["configs"]}

    assert maker["image"] == services["s3"]["image"]
    assert maker["depends_on"]["s3"]["condition"] == "service_healthy"
    assert set(services["bootstrap"]["depends_on"]) == {"prefect-server", "s3-user"}
    assert [files[word] for word in maker["command"]] == [str(ROOT / "deployments/store_user.sh")]
    policy = files[maker["environment"]["S3_POLICY"]]
    assert policy == str(ROOT / "deployments" / "policies" / "worker.json")
    assert maker["environment"]["S3_BUCKET"] == "models"


def test_database_and_messages_are_on_a_network_of_the_servers_alone(
    whole: dict[str, Any],
) -> None:
    services = whole["services"]
    on_it = {name for name, service in services.items() if "back" in service["networks"]}

    assert whole["networks"]["back"]["internal"] is True
    assert on_it == {"postgres", "redis", "migrate", "prefect-server", "prefect-services"}
    for name in ("postgres", "redis"):
        assert set(services[name]["networks"]) == {"back"}
        assert "ports" not in services[name]


def test_every_container_is_kept_small(resolved: dict[str, Any]) -> None:
    for name, service in resolved.items():
        limits = service["deploy"]["resources"]["limits"]

        assert {"memory", "pids"} <= set(limits), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] in {"unless-stopped", "no"}, name
        assert "privileged" not in service, name


def test_no_container_runs_as_root_but_the_store_whose_image_knows_no_other_user(
    resolved: dict[str, Any],
) -> None:
    others = {
        name: service.get("user") for name, service in resolved.items() if "build" not in service
    }

    assert others == {"postgres": "postgres", "redis": "redis", "s3": None, "s3-user": "1000"}
    stage = re.compile(r"^FROM (?:\S+) AS (cpu|gpu)\n(?:.+\n)*?USER (\d+)$", re.MULTILINE)
    assert dict(stage.findall(DOCKERFILE)) == {"cpu": "1000", "gpu": "1000"}


def test_our_containers_write_to_volumes_and_tmp_alone(resolved: dict[str, Any]) -> None:
    writable = set(
        re.findall(r"(/\w+)", re.findall(r"--owner=conveyor (.+?) *\\?\n", DOCKERFILE)[0])
    )

    assert writable == {"/cache", "/keys", "/scratch"}
    for name, service in resolved.items():
        if "build" in service:
            assert service["read_only"] is True, name
            assert service["tmpfs"] == ["/tmp:mode=1777"], name
            mounted = {v["target"] for v in service["volumes"]}
            assert {"/scratch"} <= mounted <= writable, name  # what Prefect keeps is there too


def test_workers_can_be_as_many_as_wanted(resolved: dict[str, Any]) -> None:
    worker = resolved["worker-cpu"]

    assert "container_name" not in worker
    assert "ports" not in worker
    assert "--name" not in worker["command"]


def test_every_image_is_a_fixed_one(resolved: dict[str, Any]) -> None:
    foreign = [s["image"] for s in resolved.values() if "build" not in s]

    assert len(foreign) == 4
    assert all(re.search(r":\D*\d", image) for image in foreign)


def test_the_example_names_every_variable_and_no_other() -> None:
    text = (ROOT / "docker-compose.yml").read_text()

    used = dict(re.findall(r"(?<!\$)\$\{(\w+)(?::-([^}]*))\}", text))

    assert used == EXAMPLE


def test_who_waits_for_a_healthy_service_waits_for_one_that_can_be(
    resolved: dict[str, Any],
) -> None:
    awaited = {
        name
        for service in resolved.values()
        for name, how in (service.get("depends_on") or {}).items()
        if how["condition"] == "service_healthy"
    }

    assert awaited
    assert all("healthcheck" in resolved[name] for name in awaited)


def test_every_service_that_stays_says_whether_it_is_well(resolved: dict[str, Any]) -> None:
    stays = {name for name, service in resolved.items() if service["restart"] != "no"}

    assert {name for name in stays if "healthcheck" not in resolved[name]} == set()


def test_who_waits_for_an_end_waits_for_a_service_that_ends(resolved: dict[str, Any]) -> None:
    awaited = {
        name
        for service in resolved.values()
        for name, how in (service.get("depends_on") or {}).items()
        if how["condition"] == "service_completed_successfully"
    }

    assert awaited == {"bootstrap", "migrate", "s3-user"}
    assert {resolved[name]["restart"] for name in awaited} == {"no"}


def test_every_pool_has_a_worker(resolved: dict[str, Any]) -> None:
    commands = [s["command"] for s in resolved.values() if "--pool" in (s.get("command") or [])]

    assert {each[each.index("--pool") + 1] for each in commands} == set(POOLS)


def test_the_gpu_worker_comes_only_when_asked_for_and_with_a_gpu(resolved: dict[str, Any]) -> None:
    worker = resolved["worker-gpu"]

    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert worker["profiles"] == ["gpu"]
    assert worker["build"]["target"] == "gpu"


def test_only_loopback_ports_are_published(resolved: dict[str, Any]) -> None:
    published = [port for service in resolved.values() for port in service.get("ports", [])]

    assert published
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_every_setting_that_is_given_exists(resolved: dict[str, Any]) -> None:
    known = {
        f"{settings.model_config['env_prefix']}{name}".upper()
        for settings in (StoreSettings, LocalSettings, GpuSettings)
        for name in settings.model_fields
    }
    given = {
        name
        for service in resolved.values()
        for name in service.get("environment") or {}
        if name.startswith("CONVEYOR_")
    }

    assert given
    assert given <= known


def test_every_setting_of_prefect_exists(resolved: dict[str, Any]) -> None:
    redis = (RedisMessagingSettings, RedisWorkerCleanupQueueSettings)
    known = {each.name for each in _get_settings_fields(Settings).values()} | {
        f"{settings.model_config['env_prefix']}{name}".upper()
        for settings in redis
        for name in settings.model_fields
    }
    given = {
        name
        for service in resolved.values()
        for name in service.get("environment") or {}
        if name.startswith("PREFECT_")
    }

    assert len(given) > 20
    assert given <= known


@pytest.mark.parametrize("module", ["messaging", "ordering", "lease_storage", "cleanup_queue"])
def test_what_the_servers_share_is_in_redis(module: str, resolved: dict[str, Any]) -> None:
    importlib.import_module(f"prefect_redis.{module}")
    for name in ("prefect-server", "prefect-services"):
        assert f"prefect_redis.{module}" in resolved[name]["environment"].values()


def test_every_image_that_is_built_has_a_target_in_the_dockerfile(resolved: dict[str, Any]) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    copied = set(re.findall(r"^COPY (requirements/\S+)", DOCKERFILE, re.MULTILINE))

    wanted = {service["build"]["target"] for service in resolved.values() if "build" in service}

    assert wanted == {"cpu", "gpu"}
    assert wanted <= targets
    assert all((ROOT / path).is_file() for path in copied)
