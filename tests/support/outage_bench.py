"""A running stack with a recipe whose conversion waits, so that something can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import yaml
from prefect.client.orchestration import PrefectClient

from deployments.automations import MOST_RESTARTS, SILENCE_SECONDS, create_automations
from deployments.processes import wait_until_healthy
from deployments.tuning import START_SECONDS
from tasks.settings import StoreSettings
from tasks.storage.publishing import latest
from tasks.storage.s3 import open_store
from tests.flows.conftest import LINEAR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deployments.local import LocalStack
    from tasks.domain.release import Manifest
    from tasks.storage.s3 import S3Store

FLOW_RUN = "-m prefect.engine"
WORKER = "-m deployments.worker --pool cpu --work-queue default"
SERVER = "-m prefect server start"
POSTGRES = "/postgres -D"
REDIS = "-server 127.0.0.1:"
S3 = "/weed "
CHILD = "-m tasks.child"
AWAY_SECONDS = 5.0
"""How long a killed server stays away: several of its clients' tries."""
SILENCE = 40
"""Seconds; in a set 180. More than the 30 s between two heartbeats: who lives is left alone."""
_NEWS_SECONDS = 7.0
"""How long the server's services may take to hear that an automation has changed.

They look each 5 s; what PostgreSQL tells them at once is lost after it was killed.
"""


class Bench:
    """A stack with one recipe, whose conversion waits until it is let go."""

    def __init__(self, stack: LocalStack, models: Path, gate: Path) -> None:
        self.stack, self._models, self._gate = stack, models, gate
        self.folder = models.parent
        self.api = httpx.Client(
            base_url=f"{stack.ui_url}/api", auth=stack.credentials, trust_env=False, timeout=10
        )

    def begin(self, queue: str = "default") -> tuple[str, str]:
        """Start a run; return model and run once its conversion waits."""
        model, run = self.ask(queue)
        self.until_it_converts(run)
        return model, run

    def ask(self, queue: str = "default", state: str = "SCHEDULED") -> tuple[str, str]:
        """Ask for a run whose conversion will wait; return model and run."""
        self.hold_back()
        model = self.new_model("linear", converters={"onnx": ["waits"]})
        return model, self.ask_for("release-model/default", queue, state, model=model)

    def new_model(self, name: str, **changes: Any) -> str:
        """Add a recipe to the catalogue; return its name, which nobody else has."""
        model = f"{name}-{os.urandom(4).hex()}"
        recipe = LINEAR | {"name": model} | changes
        (self._models / f"{model}.yaml").write_text(yaml.safe_dump(recipe))
        return model

    def ask_for(
        self, deployment: str, queue: str, state: str = "SCHEDULED", **parameters: Any
    ) -> str:
        """Ask for a run of any deployment; return it."""
        found = self.api.get(f"/deployments/name/{deployment}").json()["id"]
        asked = {"parameters": parameters, "state": {"type": state}, "work_queue_name": queue}
        made = self.api.post(f"/deployments/{found}/create_flow_run", json=asked)
        return str(made.raise_for_status().json()["id"])

    def runs_called(self, name: str) -> list[dict[str, Any]]:
        """Return the runs of this name."""
        query = {"flow_runs": {"name": {"any_": [name]}}}
        found: list[dict[str, Any]] = self.api.post("/flow_runs/filter", json=query).json()
        return found

    def ask_for_what_cannot_be_loaded(self) -> str:
        """Ask for a run of a deployment whose code is not there."""
        sound = self.api.get("/deployments/name/release-model/default").json()
        kept = ("flow_id", "path", "pull_steps", "work_pool_name", "work_queue_name")
        broken = {name: sound[name] for name in kept}
        broken |= {"name": "broken", "entrypoint": "flows.absent.absent"}
        deployment = self.api.post("/deployments/", json=broken).raise_for_status().json()["id"]
        asked = {"state": {"type": "SCHEDULED"}}
        made = self.api.post(f"/deployments/{deployment}/create_flow_run", json=asked)
        return str(made.raise_for_status().json()["id"])

    def until_it_converts(self, run: str) -> None:
        self.until_in_stage(run, "export")

    def until_in_stage(self, run: str, stage: str) -> None:
        query = {"flow_runs": {"id": {"any_": [run]}}, "task_runs": {"name": {"like_": stage}}}
        self.wait(
            lambda: any(
                each["state_type"] == "RUNNING"
                for each in self.api.post("/task_runs/filter", json=query).json()
            )
        )

    def hold_back(self) -> None:
        self._gate.unlink(missing_ok=True)

    def let_go(self) -> None:
        self._gate.touch()

    def until(self, run: str, name: str, seconds: float = 120) -> None:
        """Return once ``run`` has been in a state of this name."""
        self.wait(lambda: name in self.names(run), seconds, lambda: self.names(run))

    def names(self, run: str) -> list[str]:
        """Return the names of all states of ``run``, in order."""
        return [state["name"] for state in self.history(run)]

    def history(self, run: str) -> list[dict[str, Any]]:
        """Return all states of ``run``, in order."""
        states = self.api.get("/flow_run_states/", params={"flow_run_id": run}).json()
        return sorted(states, key=lambda each: str(each["timestamp"]))

    def end_of(self, run: str, seconds: float = 120) -> dict[str, Any]:
        """Return the state in which ``run`` ends; one that is crashed is started again."""
        self.wait(
            lambda: self._state(run)["type"] in {"COMPLETED", "FAILED"},
            seconds,
            lambda: self.names(run),
        )
        return self._state(run)

    def _state(self, run: str) -> dict[str, Any]:
        state: dict[str, Any] = self.api.get(f"/flow_runs/{run}").json()["state"]
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

    def kill(self, words: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End the processes of the stack whose command has these words; by default as a power
        cut would."""
        found = {
            process: " ".join(process.cmdline())
            for process in psutil.Process().children(recursive=True)
            if process.status() != psutil.STATUS_ZOMBIE and self._is_ours(process)
        }
        ended = [
            process
            for process, command in found.items()
            if words in command and "leash.py" not in command
        ]
        assert ended
        for process in ended:
            process.send_signal(how)
        if how is signal.SIGTERM and words == POSTGRES:
            # to PostgreSQL it says: no new clients, and end when the last one has gone, which
            # Prefect's server never does; so an admin, and Docker, then say SIGINT
            assert psutil.wait_procs(ended, timeout=2)[1] == ended
            for process in ended:
                process.send_signal(signal.SIGINT)
        left = psutil.wait_procs(ended, timeout=60)[1]
        assert not left, left

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether a process is one of this stack: other tests of this session have theirs."""
        folder = str(self.stack.folder)
        with contextlib.suppress(psutil.Error):
            told = [*process.cmdline(), process.cwd(), process.environ().get("PREFECT_HOME", "")]
            return any(folder in each for each in told)
        return False

    def take_down(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill a worker, its runs and their children at one moment, as if their machine went."""
        machine = psutil.Process(worker.pid)
        processes = [machine, *machine.children(recursive=True)]
        for each in processes:  # so that none of them tells of another's end
            each.suspend()
        for each in processes:
            each.kill()
        psutil.wait_procs(processes, timeout=10)

    @contextmanager
    def worker(
        self,
        queue: str,
        grace: float,
        *options: str,
        pool: str = "cpu",
        name: str = "",
        **variables: str,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run one more worker, for a queue of its own, on no leash."""
        self.api.post(f"/work_pools/{pool}/queues", json={"name": queue})
        command = [sys.executable, "-m", "deployments.worker", "--pool", pool]
        command += ["--name", name or queue]
        command += ["--work-queue", queue, "--grace", str(grace), *options]
        environment = self.stack.full_environment() | self.stack._worker_store | variables
        with (
            (self.stack.folder / f"{queue}.log").open("ab") as log,
            subprocess.Popen(command, env=environment, stdout=log, stderr=log) as worker,
        ):
            try:
                yield worker
            finally:
                if worker.poll() is None:
                    self.take_down(worker)

    def replace(self, name: str) -> None:
        """Start a killed service again, as it was."""
        (old,) = [each for each in self.stack._services if each.name == name]
        self.stack._services.remove(old)
        command = old._process.args
        assert isinstance(command, list)
        module = command[command.index("-m") + 1 :]
        servers = self.stack._server_environment()
        variables = servers if name.startswith("prefect") else self.stack._worker_store
        service = self.stack._serve(name, *map(str, module), variables=variables)
        if name == "prefect-server":
            wait_until_healthy(f"{self.stack.ui_url}/api/health", service, 60)

    @contextmanager
    def without(
        self,
        words: str,
        start: Callable[[], None],
        how: signal.Signals = signal.SIGKILL,
        seconds: float = AWAY_SECONDS,
    ) -> Iterator[None]:
        """End a server, let what is within the ``with`` happen without it, and start it again."""
        self.kill(words, how)
        try:
            yield
            time.sleep(seconds)
        finally:
            start()

    def restart_s3(self) -> None:
        self.stack.s3.stop()
        self.stack.s3.start()

    def released_whole(self, model: str) -> Manifest:
        """Return the manifest of the one version of ``model``, each of whose files is there."""
        store = self.store
        manifest = latest(store, model)
        assert manifest is not None
        assert manifest.version == 1
        for each in manifest.files:
            content = store.read(f"{model}/1/{each.path}").content
            assert hashlib.sha256(content).hexdigest() == each.sha256, each.path
        return manifest

    def latest(self, model: str) -> Manifest | None:
        return latest(self.store, model)

    @property
    def store(self) -> S3Store:
        """The stack's bucket."""
        return open_store(StoreSettings.model_validate(self.stack.store_settings()))

    @contextmanager
    def bounds(
        self,
        silence: float = SILENCE_SECONDS,
        start: float = START_SECONDS["process"],
        restarts: int = MOST_RESTARTS,
    ) -> Iterator[None]:
        """Let the server notice in seconds what else takes it minutes."""
        asyncio.run(self._declare(silence, start, restarts))
        # an event that comes before the news is held to the old bounds
        time.sleep(_NEWS_SECONDS)
        try:
            yield
        finally:
            usual = (SILENCE_SECONDS, START_SECONDS["process"], MOST_RESTARTS)
            asyncio.run(self._declare(*usual))

    async def _declare(self, silence: float, start: float, restarts: int) -> None:
        name, password = self.stack.credentials or ("", "")
        auth = f"{name}:{password}" if name else None
        async with PrefectClient(f"{self.stack.ui_url}/api", auth_string=auth) as client:
            await create_automations(client, silence, start, restarts)
