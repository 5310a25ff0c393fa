"""The compose file, read by the real Compose; no engine is needed for that."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.pools import POOLS
from tasks.settings import GpuSettings, LocalSettings, StoreSettings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = Path(sys.executable).with_name("docker-compose")
SECRETS = {
    "POSTGRES_PASSWORD": "pg-secret",
    "S3_ACCESS_KEY_ID": "key",
    "S3_SECRET_ACCESS_KEY": "s3-secret",
    "SERVER_AUTH": "admin:secret",
}
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if line and not line.startswith("#")
)


def compose(
    folder: Path, secrets: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    env = folder / "env"
    env.write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    file = ROOT / "docker-compose.yml"
    command = [str(COMPOSE), "-f", str(file), "--env-file", str(env), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={})


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the file as Compose understands it, with every profile."""
    folder = tmp_path_factory.mktemp("compose")
    done = compose(folder, SECRETS, "--profile", "*", "config")
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return services


def test_compose_accepts_the_file(tmp_path: Path) -> None:
    done = compose(tmp_path, SECRETS, "config", "--quiet")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_has_a_default(secret: str, tmp_path: Path) -> None:
    done = compose(tmp_path, SECRETS | {secret: ""}, "config", "--quiet")

    assert done.returncode != 0
    assert secret in done.stderr


def test_the_example_names_every_variable_and_no_other() -> None:
    text = (ROOT / "docker-compose.yml").read_text()

    used = dict(re.findall(r"\$\{(\w+)(?::([-?][^}]*))?\}", text))

    assert set(used) == set(EXAMPLE)
    defaults = {name: rest[1:] for name, rest in used.items() if rest.startswith("-")}
    assert defaults == {name: EXAMPLE[name] for name in defaults}
    assert {name for name in used if name not in defaults} == set(SECRETS)


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


def test_who_waits_for_an_end_waits_for_a_service_that_ends(resolved: dict[str, Any]) -> None:
    awaited = {
        name
        for service in resolved.values()
        for name, how in (service.get("depends_on") or {}).items()
        if how["condition"] == "service_completed_successfully"
    }

    assert awaited == {"bootstrap"}
    assert resolved["bootstrap"]["restart"] == "no"


def test_every_pool_has_a_worker(resolved: dict[str, Any]) -> None:
    commands = [s["command"] for s in resolved.values() if "worker" in (s.get("command") or [])]

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


def test_every_image_that_is_built_has_a_target_in_the_dockerfile(resolved: dict[str, Any]) -> None:
    text = (ROOT / "deployments" / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
    copied = set(re.findall(r"^COPY (requirements/\S+)", text, re.MULTILINE))

    wanted = {service["build"]["target"] for service in resolved.values() if "build" in service}

    assert wanted == {"cpu", "gpu"}
    assert wanted <= targets
    assert all((ROOT / path).is_file() for path in copied)
