"""Something of the running stack is killed while a model is on its way."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
import yaml
from prefect.client.orchestration import PrefectClient

from deployments.automations import CRASH_SILENT_RUNS, SILENCE_SECONDS, create_automations
from deployments.local import LocalStack
from deployments.processes import wait_until_healthy
from tasks.settings import StoreSettings
from tasks.storage.publishing import latest
from tasks.storage.s3 import open_store
from tests.flows.conftest import LINEAR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.domain.release import Manifest

FLOW_RUN = "-m prefect.engine"
WORKER = "-m prefect worker start --pool cpu --work-queue default"
SERVER = "-m prefect server start"


class Bench:
    """A stack with one recipe, whose conversion waits until it is let go."""

    def __init__(self, stack: LocalStack, models: Path, gate: Path) -> None:
        self.stack, self._models, self._gate = stack, models, gate
        self.api = httpx.Client(base_url=f"{stack.ui_url}/api", trust_env=False, timeout=10)

    def begin(self) -> tuple[str, str]:
        """Start a run; return model and run once its conversion waits."""
        self._gate.unlink(missing_ok=True)
        model = f"linear-{os.urandom(4).hex()}"
        recipe = LINEAR | {"name": model, "converters": {"onnx": ["waits"]}}
        (self._models / f"{model}.yaml").write_text(yaml.safe_dump(recipe))
        deployment = self.api.get("/deployments/name/release-model/default").json()["id"]
        asked = {"parameters": {"model": model}, "state": {"type": "SCHEDULED"}}
        run = self.api.post(f"/deployments/{deployment}/create_flow_run", json=asked).json()["id"]
        query = {"flow_runs": {"id": {"any_": [run]}}, "task_runs": {"name": {"like_": "export"}}}
        self.wait(
            lambda: any(
                each["state_type"] == "RUNNING"
                for each in self.api.post("/task_runs/filter", json=query).json()
            )
        )
        return model, run

    def let_go(self) -> None:
        self._gate.touch()

    def end_of(self, run: str, seconds: float = 120) -> dict[str, Any]:
        """Return the state in which ``run`` ends."""
        self.wait(lambda: self._state(run)["type"] in {"COMPLETED", "FAILED", "CRASHED"}, seconds)
        return self._state(run)

    def _state(self, run: str) -> dict[str, Any]:
        state: dict[str, Any] = self.api.get(f"/flow_runs/{run}").json()["state"]
        return state

    def wait(self, condition: Any, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.1)

    def kill(self, words: str) -> None:
        """Kill the processes of the stack whose command has these words, as a power cut would."""
        found = {
            process: " ".join(process.cmdline())
            for process in psutil.Process().children(recursive=True)
            if process.status() != psutil.STATUS_ZOMBIE
        }
        killed = [
            process
            for process, command in found.items()
            if words in command and "leash.py" not in command
        ]
        assert killed
        for process in killed:
            process.kill()
        psutil.wait_procs(killed, timeout=10)

    def replace(self, name: str) -> None:
        """Start a killed service again, as it was."""
        (old,) = [each for each in self.stack._services if each.name == name]
        self.stack._services.remove(old)
        command = old._process.args
        assert isinstance(command, list)
        module = command[command.index("-m") + 1 :]
        service = self.stack._serve(name, *map(str, module))
        if name == "prefect-server":
            wait_until_healthy(f"{self.stack.ui_url}/api/health", service, 60)

    def latest(self, model: str) -> Manifest | None:
        settings = StoreSettings.model_validate(self.stack.store_settings())
        return latest(open_store(settings), model)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("outages")
    (folder / "models").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        packages = ["tasks.converters", "tests.support.faulty_converters"]
        patch.setenv("CONVEYOR_CONVERTER_PACKAGES", json.dumps(packages))
        patch.setenv("CONVEYOR_CATALOGUE", str(folder / "models"))
        patch.setenv("TEST_GATE", str(folder / "gate"))
        with LocalStack(folder / "stack") as stack:
            yield Bench(stack, folder / "models", folder / "gate")


def test_a_prefect_server_that_is_killed_and_comes_back_finds_the_run_finished(
    bench: Bench,
) -> None:
    model, run = bench.begin()

    bench.kill(SERVER)
    time.sleep(5)
    bench.let_go()
    bench.replace("prefect-server")

    end = bench.end_of(run)
    assert end["type"] == "COMPLETED", end
    manifest = bench.latest(model)
    assert manifest is not None
    assert manifest.flow_run == run


def test_a_killed_run_is_crashed_at_once_and_releases_nothing(bench: Bench) -> None:
    model, run = bench.begin()

    bench.kill(FLOW_RUN)

    end = bench.end_of(run)
    assert end["type"] == "CRASHED"
    assert bench.latest(model) is None


def test_the_stack_has_an_automation_for_runs_whose_worker_is_killed_with_them(
    bench: Bench,
) -> None:
    (found,) = bench.api.post("/automations/filter", json={}).json()

    assert found["name"] == CRASH_SILENT_RUNS
    assert found["enabled"]
    assert found["trigger"]["within"] == SILENCE_SECONDS


def test_a_run_that_is_killed_with_its_worker_is_crashed_after_some_silence(bench: Bench) -> None:
    """The bound is 150 s; here it is 10 s, so that nobody waits so long for the test."""

    async def expect_heartbeats_within(seconds: float) -> None:
        async with PrefectClient(f"{bench.stack.ui_url}/api") as client:
            await create_automations(client, seconds)

    asyncio.run(expect_heartbeats_within(10))
    model, run = bench.begin()

    bench.kill(WORKER)

    end = bench.end_of(run)
    asyncio.run(expect_heartbeats_within(SILENCE_SECONDS))
    bench.replace("worker")
    assert end["type"] == "CRASHED"
    assert end["message"].startswith("No heartbeat for 10 s")
    assert bench.latest(model) is None
