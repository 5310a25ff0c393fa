"""Many models at once, on a real stack: two who ask, one who is killed, and nights."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
import yaml

from deployments.bootstrap import SWITCH as CREATED_SWITCH
from deployments.local import LocalStack
from flows.nightly import SWITCH
from tasks.settings import StoreSettings
from tasks.storage.s3 import open_store
from tests.flows.conftest import LINEAR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Bench:
    """A stack whose models wait in their conversion until they are let go."""

    def __init__(self, stack: LocalStack, models: Path, gate: Path) -> None:
        self._models, self._gate = models, gate
        self.store = open_store(StoreSettings.model_validate(stack.store_settings()))
        self.api = httpx.Client(base_url=f"{stack.ui_url}/api", trust_env=False, timeout=20)

    def add(self, name: str, *, fails: bool = False, **changes: Any) -> None:
        converter = "drops-bias" if fails else "waits"
        recipe = LINEAR | {"name": name, "converters": {"onnx": [converter]}} | changes
        (self._models / f"{name}.yaml").write_text(yaml.safe_dump(recipe))

    def close_gate(self) -> None:
        self._gate.unlink(missing_ok=True)

    def open_gate(self) -> None:
        self._gate.touch()

    def start(
        self,
        deployment: str,
        late: timedelta | None = None,
        queue: str | None = None,
        key: str | None = None,
        name: str | None = None,
        **parameters: Any,
    ) -> str:
        found = self.api.get(f"/deployments/name/{deployment}").json()["id"]
        state: dict[str, Any] = {"type": "SCHEDULED"}
        if late:
            due = (datetime.now(UTC) - late).isoformat()
            state["state_details"] = {"scheduled_time": due}
        asked = {"parameters": parameters, "state": state, "work_queue_name": queue}
        asked |= {"idempotency_key": key, "name": name} if key else {}
        return str(self._ask("POST", f"/deployments/{found}/create_flow_run", asked).json()["id"])

    def switch_on(self) -> None:
        self._ask("PATCH", f"/variables/name/{SWITCH}", {"value": "on"})

    def _ask(self, method: str, url: str, body: dict[str, Any]) -> httpx.Response:
        answer = self.api.request(method, url, json=body)
        while answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # SQLite is busy: ask again
            time.sleep(0.5)
            answer = self.api.request(method, url, json=body)
        return answer.raise_for_status()

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/flow_runs/{run}").json()
        return found

    def end_of(self, run: str) -> dict[str, Any]:
        self.wait(lambda: self.run(run)["state"]["type"] in FINAL)
        state: dict[str, Any] = self.run(run)["state"]
        return state

    def logs_of(self, run: str) -> str:
        query = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200}
        found = self.api.post("/logs/filter", json=query).json()
        return "\n".join(each["message"] for each in found)

    def runs_of(self, *models: str) -> list[dict[str, Any]]:
        query = {"flow_runs": {"name": {"any_": [f"release {model}" for model in models]}}}
        found: list[dict[str, Any]] = self.api.post("/flow_runs/filter", json=query).json()
        return found

    def models_runs(self, model: str) -> list[str]:
        """Return the runs for a model, by their parameters: some are not named yet."""
        found = self.api.post("/flow_runs/filter", json={}).json()
        return [each["id"] for each in found if each["parameters"].get("model") == model]

    def cancel(self, run: str) -> None:
        state = {"state": {"type": "CANCELLED"}, "force": True}
        self._ask("POST", f"/flow_runs/{run}/set_state", state)

    def wait_for_task(self, run: str, name: str) -> None:
        query = {
            "flow_runs": {"id": {"any_": [run]}},
            "task_runs": {"name": {"like_": name}, "state": {"type": {"any_": ["RUNNING"]}}},
        }
        self.wait(lambda: bool(self.api.post("/task_runs/filter", json=query).json()))

    def wait_in_conversion(self, *models: str) -> None:
        query = {
            "flow_runs": {"name": {"any_": [f"release {model}" for model in models]}},
            "task_runs": {"name": {"like_": "export"}, "state": {"type": {"any_": ["RUNNING"]}}},
        }
        self.wait(lambda: len(self.api.post("/task_runs/filter", json=query).json()) >= len(models))

    def wait_for_start(self, run: str, number: int) -> None:
        """Return once a run has been started so many times."""
        self.wait(lambda: self.run(run)["run_count"] == number, instead=lambda: self.states(run))

    def states(self, run: str) -> list[str]:
        found = self.api.get("/flow_run_states/", params={"flow_run_id": run}).json()
        return [f"{each['timestamp']} {each['name']}: {each['message']}" for each in found]

    def wait(
        self,
        condition: Callable[[], bool],
        seconds: float = 120,
        instead: Callable[[], object] = lambda: "nothing",
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not come about, but {instead()}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("catalogue")
    (folder / "models").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        packages = ["tasks.converters", "tests.support.faulty_converters"]
        patch.setenv("CONVEYOR_CONVERTER_PACKAGES", json.dumps(packages))
        patch.setenv("CONVEYOR_CATALOGUE", str(folder / "models"))
        patch.setenv("TEST_GATE", str(folder / "gate"))
        patch.setenv("CONVEYOR_KEEP_AFTER_SECONDS", "0")
        with LocalStack(folder / "stack", at_once=3) as stack:
            yield Bench(stack, folder / "models", folder / "gate")


def test_two_who_ask_at_once_share_the_runs_and_one_bad_model_stops_no_other(
    bench: Bench,
) -> None:
    bench.close_gate()
    for name in ("shared-a", "shared-b"):
        bench.add(name, tags=["shared"])
    bench.add("shared-bad", fails=True, tags=["shared"])

    first = bench.start("release-catalog/default", select="tag:shared", at_once=3)
    bench.wait_in_conversion("shared-a", "shared-b")
    second = bench.start("release-catalog/default", select="name:shared-a")
    bench.wait(lambda: bench.run(second)["state"]["type"] == "RUNNING")
    time.sleep(2)
    bench.open_gate()

    ends = [bench.end_of(run) for run in (first, second)]
    assert ends[0]["type"] == "FAILED"
    assert ends[0]["message"] == "1 of 3 models failed: shared-bad"
    assert bench.run(first)["name"] == "catalogue tag:shared"
    assert (ends[1]["type"], ends[1]["message"]) == ("COMPLETED", "all 1 models released")
    states = {each["name"]: each["state"]["type"] for each in bench.runs_of("shared-a", "shared-b")}
    assert states == {"release shared-a": "COMPLETED", "release shared-b": "COMPLETED"}
    assert len(bench.runs_of("shared-a", "shared-b", "shared-bad")) == 3
    query = {"artifacts": {"key": {"any_": ["catalogue"]}, "flow_run_id": {"any_": [first]}}}
    (table,) = bench.api.post("/artifacts/filter", json=query).json()
    assert '"model": "shared-bad"' in table["data"]


def test_a_run_that_somebody_has_asked_for_and_that_waits_for_a_worker_is_waited_for(
    bench: Bench,
) -> None:
    bench.add("queued")
    asked = bench.start("release-model/default", queue="nobody-works-here", model="queued")

    run = bench.start("release-catalog/default", models=["queued"])
    bench.wait_for_task(run, "release queued")
    time.sleep(2)
    bench.cancel(asked)

    end = bench.end_of(run)
    assert (end["type"], end["message"]) == ("FAILED", "1 of 1 models failed: queued")
    assert bench.models_runs("queued") == [asked]
    assert bench.run(run)["name"] == "catalogue queued"


def test_a_run_that_is_planned_for_next_week_is_not_waited_for(bench: Bench) -> None:
    bench.add("planned", converters={})
    planned = bench.start("release-model/default", late=-timedelta(days=7), model="planned")

    for _ in range(2):
        run = bench.start("release-catalog/default", models=["planned"], force=True)
        assert bench.end_of(run)["message"] == "all 1 models released"

    assert len(bench.models_runs("planned")) == 3
    bench.cancel(planned)


def test_a_model_whose_only_run_is_months_old_gets_a_new_one(bench: Bench) -> None:
    bench.add("aged", converters={})
    first = bench.start(
        "release-model/default",
        late=timedelta(days=60),
        key="release aged True after none",  # as the first catalogue run asked for it
        name="release aged",
        model="aged",
        force=True,
    )
    assert bench.end_of(first)["type"] == "COMPLETED"

    run = bench.start("release-catalog/default", models=["aged"], force=True)

    assert bench.end_of(run)["message"] == "all 1 models released"
    assert len(bench.models_runs("aged")) == 2


def test_a_catalogue_run_that_is_killed_goes_on_where_it_was(bench: Bench) -> None:
    bench.close_gate()
    for name in ("killed-a", "killed-b"):
        bench.add(name)
    run = bench.start("release-catalog/default", select="name:killed-*", force=True, at_once=1)
    bench.wait_in_conversion("killed-a")

    signal_process_of(run, signal.SIGKILL)
    bench.wait_for_start(run, 2)
    bench.open_gate()

    end = bench.end_of(run)
    assert (end["type"], end["message"]) == ("COMPLETED", "all 2 models released")
    assert [len(bench.runs_of(name)) for name in ("killed-a", "killed-b")] == [1, 1]


def test_a_model_whose_run_is_ended_goes_on_from_its_finished_stages(bench: Bench) -> None:
    """By SIGTERM, which lets the run clear things away; SIGKILL leaves even more."""
    bench.close_gate()
    bench.add("resumed")
    run = bench.start("release-model/default", model="resumed")
    bench.wait_in_conversion("resumed")
    assert len(list(bench.store.keys(f"work/{run}/stages/acquire-"))) == 1

    signal_process_of(run, signal.SIGTERM)
    bench.wait_for_start(run, 2)
    bench.open_gate()

    assert bench.end_of(run)["type"] == "COMPLETED"
    said = bench.logs_of(run)
    assert "acquire: was done before the run was interrupted; its result is taken" in said
    assert "export: was done" not in said
    assert list(bench.store.keys(f"work/{run}/")) == []


def test_nights_can_be_switched_off_missed_ones_are_not_caught_up_and_no_two_overlap(
    bench: Bench,
) -> None:
    assert SWITCH == CREATED_SWITCH
    bench.add("night")
    bench.close_gate()
    off = bench.start("nightly/default", select="name:night")
    assert bench.end_of(off)["name"] == "Skipped"
    assert "'off'" in bench.run(off)["state"]["message"]
    bench.switch_on()

    missed = bench.start("nightly/default", late=timedelta(days=2), select="name:night")
    assert bench.end_of(missed)["name"] == "Skipped"
    first = bench.start("nightly/default", late=timedelta(hours=1), select="name:night")
    bench.wait_in_conversion("night")
    signal_process_of(first, signal.SIGKILL)  # the night goes on all the same
    bench.wait_for_start(first, 2)
    second = bench.start("nightly/default", select="name:night")
    refused = bench.end_of(second)
    bench.open_gate()

    assert "48.0 h ago" in bench.run(missed)["state"]["message"]
    assert refused["type"] == "CANCELLED"
    end = bench.end_of(first)
    assert (end["type"], end["message"]) == ("COMPLETED", "all 1 models released")
    assert len(bench.runs_of("night")) == 1


def test_the_nights_to_come_are_planned_in_their_time_zone(bench: Bench) -> None:
    found = bench.api.get("/deployments/name/nightly/default").json()

    schedules = {each["slug"]: each for each in found["schedules"]}
    assert schedules["nightly"]["active"]
    assert not schedules["weekly-all"]["active"]
    assert schedules["nightly"]["schedule"]["timezone"] == "Europe/Berlin"
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    query = {
        "deployments": {"id": {"any_": [found["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    bench.wait(lambda: len(bench.api.post("/flow_runs/filter", json=query).json()) > 1, 60)


def signal_process_of(run: str, how: signal.Signals) -> None:
    """Send a signal to the process that executes a flow run."""
    killed = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("PREFECT__FLOW_RUN_ID") == run
            engine = "prefect.engine" in " ".join(process.cmdline())
        except psutil.Error:
            continue
        if mine and engine:
            process.send_signal(how)
            killed.append(process)
    assert killed
