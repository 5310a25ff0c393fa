"""A bench on which any process of the stack can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
from prefect.client.orchestration import PrefectClient

from deployments.automations import MOST_RESTARTS, SILENCE_SECONDS, create_automations
from deployments.processes import wait_until_healthy
from deployments.tuning import START_SECONDS
from tests.support.bench import RELEASE, WAITS, Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.domain.release import Manifest

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


class OutageBench(Bench):
    """A bench on which servers and workers are killed, replaced and added."""

    def begin(self, queue: str = "default") -> tuple[str, str]:
        """Start a run; return model and run once its conversion waits."""
        model, run = self.ask(queue)
        self.until_in_stage(run, "export")
        return model, run

    def ask(self, queue: str = "default", state: str = "SCHEDULED") -> tuple[str, str]:
        """Ask for a run whose conversion will wait; return model and run."""
        self.hold_back()
        model = self.new_model("linear", converters=WAITS)
        return model, self.start(RELEASE, queue=queue, state=state, model=model)

    def ask_for_what_cannot_be_loaded(self) -> str:
        """Ask for a run of a deployment whose code is not there."""
        sound = self.api.get(f"/deployments/name/{RELEASE}").json()
        kept = ("flow_id", "path", "pull_steps", "work_pool_name", "work_queue_name")
        broken = {name: sound[name] for name in kept}
        broken |= {"name": "broken", "entrypoint": "flows.absent.absent"}
        deployment = self.api.post("/deployments/", json=broken).raise_for_status().json()["id"]
        asked = {"state": {"type": "SCHEDULED"}}
        made = self.api.post(f"/deployments/{deployment}/create_flow_run", json=asked)
        return str(made.raise_for_status().json()["id"])

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
        manifest = self.latest(model)
        assert manifest is not None
        assert manifest.version == 1
        for each in manifest.files:
            content = store.read(f"{model}/1/{each.path}").content
            assert hashlib.sha256(content).hexdigest() == each.sha256, each.path
        return manifest

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
