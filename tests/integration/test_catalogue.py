"""Many models at once, on a real stack: two who ask, one who is killed, and nights."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from deployments.bootstrap import SWITCH as CREATED_SWITCH
from flows.nightly import SWITCH
from tests.support.bench import RELEASE, WAITS, Bench, process_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CATALOGUE, NIGHTLY = "release-catalog/default", "nightly/default"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("catalogue")
    with Bench.running(folder, at_once=3, CONVEYOR_KEEP_AFTER_SECONDS="0") as bench:
        yield bench


def test_two_who_ask_at_once_share_the_runs_and_one_bad_model_stops_no_other(
    bench: Bench,
) -> None:
    bench.hold_back()
    for name in ("shared-a", "shared-b"):
        bench.add(name, converters=WAITS, tags=["shared"])
    bench.add("shared-bad", converters={"onnx": ["drops-bias"]}, tags=["shared"])

    first = bench.start(CATALOGUE, select="tag:shared", at_once=3)
    bench.until_converting("shared-a", "shared-b")
    second = bench.start(CATALOGUE, select="name:shared-a")
    bench.wait(lambda: bench.run(second)["state"]["type"] == "RUNNING")
    time.sleep(2)
    bench.let_go()

    ends = [bench.end_of(run) for run in (first, second)]
    assert ends[0]["type"] == "FAILED"
    assert ends[0]["message"] == "1 of 3 models failed: shared-bad"
    assert bench.run(first)["name"] == "catalogue tag:shared"
    assert (ends[1]["type"], ends[1]["message"]) == ("COMPLETED", "all 1 models released")
    runs = bench.runs_called("release shared-a", "release shared-b", "release shared-bad")
    assert sorted((each["name"], each["state"]["type"]) for each in runs) == [
        ("release shared-a", "COMPLETED"),
        ("release shared-b", "COMPLETED"),
        ("release shared-bad", "FAILED"),
    ]
    query = {"key": {"any_": ["catalogue"]}, "flow_run_id": {"any_": [first]}}
    (table,) = bench.find("artifacts", artifacts=query)
    assert '"model": "shared-bad"' in table["data"]


def test_a_run_that_somebody_has_asked_for_and_that_waits_for_a_worker_is_waited_for(
    bench: Bench,
) -> None:
    bench.add("queued", converters=WAITS)
    asked = bench.start(RELEASE, queue="nobody-works-here", model="queued")

    run = bench.start(CATALOGUE, models=["queued"])
    bench.until_in_stage(run, "release queued")
    time.sleep(2)
    bench.cancel(asked)

    end = bench.end_of(run)
    assert (end["type"], end["message"]) == ("FAILED", "1 of 1 models failed: queued")
    assert bench.runs_for("queued") == [asked]
    assert bench.run(run)["name"] == "catalogue queued"


def test_a_run_that_is_planned_for_next_week_is_not_waited_for(bench: Bench) -> None:
    bench.add("planned", converters={})
    planned = bench.start(RELEASE, late=-timedelta(days=7), model="planned")

    for _ in range(2):
        run = bench.start(CATALOGUE, models=["planned"], force=True)
        assert bench.end_of(run)["message"] == "all 1 models released"

    assert len(bench.runs_for("planned")) == 3
    bench.cancel(planned)


def test_a_model_whose_only_run_is_months_old_gets_a_new_one(bench: Bench) -> None:
    bench.add("aged", converters={})
    first = bench.start(
        RELEASE,
        late=timedelta(days=60),
        key="release aged True after none",  # as the first catalogue run asked for it
        name="release aged",
        model="aged",
        force=True,
    )
    assert bench.end_of(first)["type"] == "COMPLETED"

    run = bench.start(CATALOGUE, models=["aged"], force=True)

    assert bench.end_of(run)["message"] == "all 1 models released"
    assert len(bench.runs_for("aged")) == 2


def test_a_catalogue_run_that_is_killed_goes_on_where_it_was(bench: Bench) -> None:
    bench.hold_back()
    for name in ("killed-a", "killed-b"):
        bench.add(name, converters=WAITS)
    run = bench.start(CATALOGUE, select="name:killed-*", force=True, at_once=1)
    bench.until_converting("killed-a")

    process_of(run).send_signal(signal.SIGKILL)
    bench.until_started(run, 2)
    bench.let_go()

    end = bench.end_of(run)
    assert (end["type"], end["message"]) == ("COMPLETED", "all 2 models released")
    assert [len(bench.runs_called(f"release {name}")) for name in ("killed-a", "killed-b")] == [
        1,
        1,
    ]


def test_a_model_whose_run_is_ended_goes_on_from_its_finished_stages(bench: Bench) -> None:
    """By SIGTERM, which lets the run clear things away; SIGKILL leaves even more."""
    bench.hold_back()
    bench.add("resumed", converters=WAITS)
    run = bench.start(RELEASE, model="resumed")
    bench.until_converting("resumed")
    assert len(list(bench.store.keys(f"work/{run}/stages/acquire-"))) == 1

    process_of(run).send_signal(signal.SIGTERM)
    bench.until_started(run, 2)
    bench.let_go()

    assert bench.end_of(run)["type"] == "COMPLETED"
    said = bench.logs_of(run)
    assert "acquire: was done before the run was interrupted; its result is taken" in said
    assert "export: was done" not in said
    assert list(bench.store.keys(f"work/{run}/")) == []


def test_nights_can_be_switched_off_missed_ones_are_not_caught_up_and_no_two_overlap(
    bench: Bench,
) -> None:
    assert SWITCH == CREATED_SWITCH
    bench.add("night", converters=WAITS)
    bench.hold_back()
    off = bench.start(NIGHTLY, select="name:night")
    assert bench.end_of(off)["name"] == "Skipped"
    assert "'off'" in bench.run(off)["state"]["message"]
    bench.set_variable(SWITCH, "on")

    missed = bench.start(NIGHTLY, late=timedelta(days=2), select="name:night")
    assert bench.end_of(missed)["name"] == "Skipped"
    first = bench.start(NIGHTLY, late=timedelta(hours=1), select="name:night")
    bench.until_converting("night")
    process_of(first).send_signal(signal.SIGKILL)  # the night goes on all the same
    bench.until_started(first, 2)
    second = bench.start(NIGHTLY, select="name:night")
    refused = bench.end_of(second)
    bench.let_go()

    assert "48.0 h ago" in bench.run(missed)["state"]["message"]
    assert refused["type"] == "CANCELLED"
    end = bench.end_of(first)
    assert (end["type"], end["message"]) == ("COMPLETED", "all 1 models released")
    assert len(bench.runs_called("release night")) == 1


def test_the_nights_to_come_are_planned_in_their_time_zone(bench: Bench) -> None:
    found = bench.api.get(f"/deployments/name/{NIGHTLY}").json()

    schedules = {each["slug"]: each for each in found["schedules"]}
    assert schedules["nightly"]["active"]
    assert not schedules["weekly-all"]["active"]
    assert schedules["nightly"]["schedule"]["timezone"] == "Europe/Berlin"
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    nights = {"id": {"any_": [found["id"]]}}
    scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    bench.wait(
        lambda: len(bench.find("flow_runs", deployments=nights, flow_runs=scheduled)) > 1, 60
    )
