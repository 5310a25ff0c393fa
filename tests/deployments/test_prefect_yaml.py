"""Every deployment names a flow that exists, and a pool that somebody makes and works on."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pytest
import yaml
from prefect import Flow

from deployments.bootstrap import PREFECT_YAML
from deployments.pools import POOLS
from deployments.runs import DEPLOYMENT
from tasks.remote import DEPLOYMENT as REMOTE
from tasks.selection import parse_selection

MODELS = {"release-model", "release-catalog", "nightly"}
UPKEEP = {"promote", "rollback", "history", "diff", "collect-garbage", "fsck"}
DECLARED: list[dict[str, Any]] = yaml.safe_load(PREFECT_YAML.read_text())["deployments"]
COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    module, _, name = deployment["entrypoint"].rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, Flow)
    return found


@pytest.mark.parametrize("deployment", DECLARED, ids=lambda each: each["entrypoint"])
def test_an_entrypoint_is_a_module_path_to_a_flow(deployment: dict[str, Any]) -> None:
    assert "/" not in deployment["entrypoint"]
    assert ":" not in deployment["entrypoint"]
    assert flow_of(deployment).name in {*MODELS, "gpu-stage", *UPKEEP}


@pytest.mark.parametrize("deployment", DECLARED, ids=lambda each: each["entrypoint"])
def test_parameters_are_checked_and_what_it_does_is_said(deployment: dict[str, Any]) -> None:
    assert deployment["enforce_parameter_schema"] is True
    assert deployment["description"].strip()


def test_the_deployments_have_the_names_that_the_documentation_says() -> None:
    names = {f"{flow_of(each).name}/{each['name']}" for each in DECLARED}

    upkeep = {f"{name}/default" for name in UPKEEP}
    models = {f"{name}/default" for name in MODELS}
    assert names == models | {REMOTE} | upkeep
    assert DEPLOYMENT in names


def test_every_pool_is_made_by_the_bootstrap() -> None:
    assert {each["work_pool"]["name"] for each in DECLARED} <= set(POOLS)


def test_every_queue_has_a_worker_in_the_compose_file() -> None:
    wanted = {
        (each["work_pool"]["name"], each["work_pool"].get("work_queue_name", "default"))
        for each in DECLARED
    }

    workers = {place_of(service["command"]) for service in services_that_work()}

    assert wanted <= workers


def test_what_waits_for_other_runs_never_holds_one_of_their_places() -> None:
    by_flow = {flow_of(each).name: each["work_pool"] for each in DECLARED}

    assert by_flow["release-catalog"]["work_queue_name"] == "catalogue"
    assert by_flow["nightly"]["work_queue_name"] == "catalogue"
    assert by_flow["release-model"].get("work_queue_name", "default") == "default"
    (worker,) = [s for s in services_that_work() if place_of(s["command"])[1] == "catalogue"]
    assert "--limit" not in worker["command"]


def services_that_work() -> list[dict[str, Any]]:
    return [s for s in COMPOSE["services"].values() if "--pool" in s.get("command", [])]


def place_of(command: list[str]) -> tuple[str, str]:
    options = dict(itertools.pairwise(command))
    return options["--pool"], options.get("--work-queue", "default")


def test_each_schedule_has_a_name_of_its_own_a_time_zone_and_parameters_that_its_flow_takes() -> (
    None
):
    scheduled = [each for each in DECLARED if "schedules" in each]

    assert [flow_of(each).name for each in scheduled] == ["nightly"]
    for deployment in scheduled:
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        known = flow_of(deployment).parameters.properties
        for schedule in deployment["schedules"]:
            assert schedule["slug"]
            assert schedule["timezone"] in available_timezones()
            assert set(schedule["parameters"]) <= set(known)
            parse_selection(schedule["parameters"]["select"])
