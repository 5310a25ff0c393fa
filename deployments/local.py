"""The whole stack on this machine: databases, S3 server, Prefect server, work pool, two workers.

All of it listens on loopback alone, keeps its files below one folder (``.conveyor/``), leaves
the user's own Prefect profile untouched, and ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from deployments import tuning
from deployments.backing import Backing
from deployments.databases import kept_secret
from deployments.folder_lock import locked
from deployments.processes import Leashed, StackError, free_port, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from deployments.s3_server import S3Server

ROOT = Path(__file__).resolve().parent.parent
POOL = "cpu"

_SERVER_SECONDS = 120.0
_BOOTSTRAP_SECONDS = 120.0
_TICK_SECONDS = 0.05
_SERVICES = ("prefect", "server", "services", "start")
_MIGRATE = "PREFECT_SERVER_DATABASE_MIGRATE_ON_START"
_NONE: Mapping[str, str] = {}


class LocalStack:
    """A context manager: inside it, the stack runs."""

    def __init__(
        self,
        folder: Path,
        *,
        at_once: int = 2,
        port: int | None = None,
        whole: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare to start the stack; entering starts it.

        Args:
            folder: Where all its files go; a stack started there again finds its releases and
                its runs.
            at_once: How many runs the worker holds at the same time.
            port: Of the Prefect server, if it is free; absent or taken: any that is free.
            whole: Whether the server has its background services apart, where Redis is found, and
                asks for a password; else it is one process. Either way it stands on PostgreSQL
                where that is found, and on SQLite where it is not.
            say: Is told, in a few words, what is being waited for.
        """
        self.folder = folder.resolve()
        self.at_once = at_once
        self._port = port
        self._say = say
        self._services: list[Leashed] = []
        self._exits = contextlib.ExitStack()
        self._whole = whole
        self._auth = ""
        self.backing = Backing()
        self.s3 = _s3_server(self.folder / "s3")
        self._store: dict[str, str] = {}
        self._worker_store: dict[str, str] = {}
        self.browser_url: str | None = None
        self.ui_url = ""

    def __enter__(self) -> Self:
        """Start everything, and return when it is ready for runs.

        Raises:
            StackError: Another stack runs in this folder, or a part did not start.
        """
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything."""
        self.close()

    def close(self) -> None:
        """End every process of the stack, and return when none is left."""
        # the worker first: it must not find its server gone
        for service in reversed(self._services):
            service.let_go()
        while self._services:
            self._services.pop().wait()
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "env").unlink()
        self._exits.close()

    def environment(self) -> dict[str, str]:
        """Return what another process needs to talk to this stack, on top of its own variables."""
        return {
            "PREFECT_API_URL": f"{self.ui_url}/api",
            "PREFECT_HOME": str(self.folder / "prefect"),
            **({"PREFECT_API_AUTH_STRING": self._auth} if self._auth else {}),
            "CONVEYOR_CATALOGUE": os.environ.get("CONVEYOR_CATALOGUE", str(ROOT / "models")),
            **tuning.RUN,
            **self._store,
        }

    @property
    def credentials(self) -> tuple[str, str] | None:
        """Name and password that the server's API asks for, if it asks."""
        name, _, password = self._auth.partition(":")
        return (name, password) if self._auth else None

    def store_settings(self) -> dict[str, str]:
        """Return the fields of ``StoreSettings`` that reach this stack's bucket."""
        prefix = "CONVEYOR_STORE_"
        return {name.removeprefix(prefix).lower(): value for name, value in self._store.items()}

    @property
    def bucket_url(self) -> str:
        """``s3://bucket`` of the releases."""
        return f"s3://{self.store_settings()['bucket']}"

    def full_environment(self) -> dict[str, str]:
        """Return this process's environment without its own Prefect, with this stack's."""
        mine = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        return mine | _QUIET | _reach_loopback(mine) | self.environment()

    def run(self, name: str, *command: str) -> Leashed:
        """Start ``python -m <command>`` beside the stack, in its environment."""
        return Leashed(
            name,
            [sys.executable, "-m", *command],
            log=self.folder / "logs" / f"{name}.log",
            environment=self.full_environment(),
        )

    def raise_if_broken(self) -> None:
        """Raise if a part of the stack has ended.

        Raises:
            StackError: Which, and its last lines.
        """
        for service in (*self.backing.processes, *self._services):
            service.raise_if_ended()

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._exits.enter_context(locked(self.folder, self._say))
        port = free_port(self._port)
        self.ui_url = f"http://127.0.0.1:{port}"
        if self._whole:
            self._auth = f"conveyor:{kept_secret(self.folder / 'password')}"
        self._say("starting the databases")
        found = Backing.found(self.folder, self._lock, split=self._whole)
        self.backing = self._exits.enter_context(found)
        self._say("starting the Prefect server and the S3 server")
        server = self._start_server(port)
        bootstrap = self._serve("bootstrap", "deployments.bootstrap", "--local")
        store = self._exits.enter_context(self.s3)
        self._store = store.environment()
        self.browser_url = store.browser_url
        wait_until_healthy(f"{self.ui_url}/api/health", server, _SERVER_SECONDS)
        if self.backing.is_split:
            variables = self._server_environment() | {_MIGRATE: "false"}
            self._serve("prefect-services", *_SERVICES, variables=variables)
        self._say("deploying the flows")
        self._finish(bootstrap)
        # what works gets no more rights in the store than it needs
        self._worker_store = store.environment(worker=True) if self._whole else {}
        self._start_worker("worker", "default", "--limit", str(self.at_once))
        # a catalogue run waits for its models' runs: it must never hold one of their places
        self._start_worker("catalogue-worker", "catalogue")
        _write_privately(self.folder / "env", self._env_file())

    def _start_server(self, port: int) -> Leashed:
        start = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
        apart = ("--no-services",) if self.backing.is_split else ()
        return self._serve("prefect-server", *start, *apart, variables=self._server_environment())

    def _server_environment(self) -> dict[str, str]:
        """Return what the server's own processes have beside the variables of all."""
        auth = {"PREFECT_SERVER_API_AUTH_STRING": self._auth} if self._auth else {}
        return self.backing.environment() | auth

    def _start_worker(self, name: str, queue: str, *options: str) -> None:
        # when the stack ends, so do its runs, at once; the next one sets them Cancelled
        start = ("deployments.worker", "--pool", POOL, "--work-queue", queue, "--grace", "0")
        self._serve(name, *start, "--name", name, *options, variables=self._worker_store)

    def _serve(self, name: str, *command: str, variables: Mapping[str, str] = _NONE) -> Leashed:
        service = Leashed(
            name,
            [sys.executable, "-m", *command],
            log=self.folder / "logs" / f"{name}.log",
            environment={**self.full_environment(), **variables},
            keep=(self._lock,),
        )
        self._services.append(service)
        return service

    def _finish(self, service: Leashed) -> None:
        """Wait until ``service`` has done its work and ended well."""
        deadline = time.monotonic() + _BOOTSTRAP_SECONDS
        while service.returncode is None:
            if time.monotonic() > deadline:
                message = f"{service.name}: not done within {_BOOTSTRAP_SECONDS:.0f} s."
                raise StackError(f"{message} The end of {service.log}:\n{service.last_lines()}")
            time.sleep(_TICK_SECONDS)
        if service.returncode != 0:
            service.raise_if_ended()
        self._services.remove(service)

    def _env_file(self) -> str:
        """Return shell lines that let another shell talk to this stack."""
        store = self.store_settings()
        for_aws = {
            "AWS_ENDPOINT_URL": store["endpoint"],
            "AWS_DEFAULT_REGION": store["region"],
            "AWS_ACCESS_KEY_ID": store["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": store["secret_access_key"],
        }
        variables = self.environment() | for_aws
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        programs = shlex.quote(str(Path(sys.executable).parent))
        return "\n".join([*lines, f'export PATH={programs}:"$PATH"', ""])


# What is set once for every process of the stack.
_QUIET = {
    **tuning.SERVER,
    **tuning.CLIENT,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # so that `prefect deployment run --watch` shows a run's log, and with it why it failed
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
    "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "1",  # few workers, and somebody waits
    "PYTHONUNBUFFERED": "1",
}


def _reach_loopback(environment: dict[str, str]) -> dict[str, str]:
    """Keep requests to loopback away from the proxy that the user may have."""
    hosts = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    exempt = ",".join(filter(None, [hosts, "127.0.0.1", "localhost"]))
    return {"no_proxy": exempt, "NO_PROXY": exempt}


def _s3_server(folder: Path) -> S3Server:
    from deployments.s3_server import S3Server

    # what it has acknowledged is on its disk, so a short grace loses nothing
    return S3Server(folder, grace_seconds=1.0)


def _write_privately(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
