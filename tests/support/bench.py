"""A running stack with a catalogue of the test's own, whose conversions wait when they are told."""

from __future__ import annotations

import contextlib
import json
import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import httpx
import psutil
import pytest
import yaml

from deployments.databases import find_postgres
from deployments.local import LocalStack
from tasks.settings import StoreSettings
from tasks.storage.publishing import latest
from tasks.storage.s3 import open_store
from tests.flows.conftest import LINEAR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tasks.domain.release import Manifest
    from tasks.storage.s3 import S3Store

RELEASE = "release-model/default"
WAITS = {"onnx": ["waits"]}
"""The converters of a model whose conversion waits at the gate."""
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
"""Types of state; a crashed run is started again."""
_ANSWER_SECONDS = 60.0  # as long as Prefect's own client waits


class Bench:
    """A stack, its models, and a gate at which conversions wait until they are let go."""

    def __init__(self, stack: LocalStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self._gate = folder / "gate"
        self.api = httpx.Client(
            base_url=f"{stack.ui_url}/api",
            auth=stack.credentials,
            trust_env=False,
            timeout=_ANSWER_SECONDS,
        )

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *, at_once: int = 2, **variables: str) -> Iterator[Self]:
        """Start a stack on PostgreSQL, and on Redis where this machine has it.

        Args:
            folder: For all files.
            at_once: How many models' runs it holds at the same time.
            variables: Of the environment of all its processes.
        """
        if find_postgres() is None:
            pytest.skip("there is no PostgreSQL; on SQLite the server may stand still for a minute")
        for name in ("models", "scratch"):
            (folder / name).mkdir()
        packages = ["tasks.converters", "tests.support.faulty_converters"]
        all_of_them = {
            "CONVEYOR_CONVERTER_PACKAGES": json.dumps(packages),
            "CONVEYOR_CATALOGUE": str(folder / "models"),
            "CONVEYOR_SCRATCH": str(folder / "scratch"),
            "TEST_GATE": str(folder / "gate"),
            **variables,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in all_of_them.items():
                patch.setenv(name, value)
            with LocalStack(folder / "stack", at_once=at_once, whole=True) as stack:
                yield cls(stack, folder)

    def add(self, name: str, **changes: Any) -> None:
        """Add a small recipe to the catalogue."""
        recipe = LINEAR | {"name": name} | changes
        (self.folder / "models" / f"{name}.yaml").write_text(yaml.safe_dump(recipe))

    def new_model(self, name: str, **changes: Any) -> str:
        """Add a recipe under a name that nobody else has; return that."""
        model = f"{name}-{os.urandom(4).hex()}"
        self.add(model, **changes)
        return model

    def hold_back(self) -> None:
        self._gate.unlink(missing_ok=True)

    def let_go(self) -> None:
        self._gate.touch()

    def start(
        self,
        deployment: str,
        *,
        queue: str | None = None,
        state: str = "SCHEDULED",
        late: timedelta = timedelta(0),
        key: str | None = None,
        name: str | None = None,
        **parameters: Any,
    ) -> str:
        """Ask for a run of a deployment, as due so long ago; return it."""
        found = self.api.get(f"/deployments/name/{deployment}").raise_for_status().json()["id"]
        asked: dict[str, Any] = {"parameters": parameters, "state": {"type": state}}
        if late:
            due = (datetime.now(UTC) - late).isoformat()
            asked["state"]["state_details"] = {"scheduled_time": due}
        told = {"work_queue_name": queue, "idempotency_key": key, "name": name}
        asked |= {field: value for field, value in told.items() if value}
        made = self.api.post(f"/deployments/{found}/create_flow_run", json=asked)
        return str(made.raise_for_status().json()["id"])

    def set_variable(self, name: str, value: str) -> None:
        """Set a Prefect variable that is there."""
        self.api.patch(f"/variables/name/{name}", json={"value": value}).raise_for_status()

    def cancel(self, run: str) -> None:
        state = {"state": {"type": "CANCELLED"}, "force": True}
        self.api.post(f"/flow_runs/{run}/set_state", json=state).raise_for_status()

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/flow_runs/{run}").raise_for_status().json()
        return found

    def find(self, what: str, **query: Any) -> list[dict[str, Any]]:
        """Return the ``flow_runs``, ``task_runs`` … that a query of Prefect's API finds."""
        answer = self.api.post(f"/{what}/filter", json=query).raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def runs_called(self, *names: str) -> list[dict[str, Any]]:
        """Return the runs of these names."""
        return self.find("flow_runs", flow_runs={"name": {"any_": names}})

    def runs_for(self, model: str) -> list[str]:
        """Return the runs for a model, by their parameters: some are not named yet."""
        found = self.find("flow_runs")
        return [each["id"] for each in found if each["parameters"].get("model") == model]

    def logs_of(self, run: str) -> str:
        found = self.find("logs", logs={"flow_run_id": {"any_": [run]}}, limit=200)
        return "\n".join(each["message"] for each in found)

    def names(self, run: str) -> list[str]:
        """Return the names of all states of ``run``, in order."""
        return [state["name"] for state in self.history(run)]

    def history(self, run: str) -> list[dict[str, Any]]:
        """Return all states of ``run``, in order."""
        states = self.api.get("/flow_run_states/", params={"flow_run_id": run}).json()
        return sorted(states, key=lambda each: str(each["timestamp"]))

    def until_in_stage(self, run: str, stage: str) -> None:
        """Return once a task of ``run`` with such a name is at work."""
        self._until_at_work(1, stage, {"id": {"any_": [run]}}, lambda: self.names(run))

    def until_converting(self, *models: str) -> None:
        """Return once a run for each model is at its conversion."""
        names = [f"release {model}" for model in models]
        self._until_at_work(
            len(models), "export", {"name": {"any_": names}}, lambda: self.runs_called(*names)
        )

    def _until_at_work(
        self, tasks: int, stage: str, runs: dict[str, Any], instead: Callable[[], object]
    ) -> None:
        work = {"name": {"like_": stage}, "state": {"type": {"any_": ["RUNNING"]}}}
        self.wait(
            lambda: len(self.find("task_runs", flow_runs=runs, task_runs=work)) >= tasks,
            instead=instead,
        )

    def until(self, run: str, name: str, seconds: float = 120) -> None:
        """Return once ``run`` has been in a state of this name."""
        self.wait(lambda: name in self.names(run), seconds, lambda: self.names(run))

    def until_started(self, run: str, number: int) -> None:
        """Return once a run has been started so many times."""
        self.wait(lambda: self.run(run)["run_count"] == number, instead=lambda: self.history(run))

    def end_of(self, run: str, seconds: float = 120) -> dict[str, Any]:
        """Return the state in which ``run`` ends; one that is crashed is started again."""
        self.wait(
            lambda: self.run(run)["state"]["type"] in _ENDED, seconds, lambda: self.names(run)
        )
        state: dict[str, Any] = self.run(run)["state"]
        return state

    def wait(
        self,
        condition: Callable[[], bool],
        seconds: float = 120,
        instead: Callable[[], object] = lambda: "nothing",
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not come about, but {instead()}"
            time.sleep(0.1)

    def latest(self, model: str) -> Manifest | None:
        return latest(self.store, model)

    @property
    def store(self) -> S3Store:
        """The stack's bucket."""
        return open_store(StoreSettings.model_validate(self.stack.store_settings()))


def process_of(run: str) -> psutil.Process:
    """Return the process that executes a flow run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mine = process.environ().get("PREFECT__FLOW_RUN_ID") == run
            if mine and "prefect.engine" in " ".join(process.cmdline()):
                found.append(process)
    assert len(found) == 1, f"{len(found)} processes execute the run {run}"
    return found[0]
