"""The services of ``docker-compose.yml`` on this machine, without an engine.

What an image of ours would run is run as it stands there: entrypoint, command, variables, health
command, order. Names and ports of containers become loopback addresses, paths of containers
folders below one, and foreign images are the same servers as this machine has them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
import asyncpg
import yaml

from deployments import secret_files
from deployments.databases import Postgres, find_postgres, find_redis
from deployments.processes import Leashed, free_port
from deployments.s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deployments" / "Dockerfile").read_text()
BIN = Path(sys.executable).parent
WRITABLE = ("cache", "keys", "scratch", "tmp")
FOREIGN = ("postgres", "redis", "s3", "s3-user")
SECONDS = 180
USER = 1000
AS_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--pdeathsig=KILL"),
    # it may look into root's folders, where the code may lie, and write to its own alone
    *("--no-new-privs", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
"""What the images' ``USER`` does, where root runs the tests."""


class ByHand:
    """A context manager: inside it, the services run."""

    def __init__(self, folder: Path, catalogue: Path, leave_out: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._catalogue = catalogue
        self.secrets_folder = folder / "secrets"
        self.logs = folder / "logs"
        self._leave_out = leave_out
        self._exits = ExitStack()
        self.started: dict[str, Leashed | None] = {}
        wanted = ("api", "redis", "worker-cpu", "worker-catalogue", "worker-gpu")
        self.ports = {name: free_port() for name in wanted}
        self.services: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            self._prepare()
            while waiting := [name for name in self.services if name not in self.started]:
                ready = [name for name in waiting if self._may_start(name)]
                assert ready, f"no order in which these start: {waiting}"
                for name in ready:
                    self.started[name] = self._start(name)
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    @property
    def secrets(self) -> dict[str, str]:
        return {file.name: file.read_text() for file in self.secrets_folder.iterdir()}

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}/api"

    @property
    def told_to_mc(self) -> Path:
        """What MinIO's client was told; the store here has the same user from its start."""
        return self.folder / "scratch" / "mc.json"

    def is_healthy(self, name: str) -> bool:
        """Ask a service's own health command."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        command = ["sh", "-c", words[0]] if kind == "CMD-SHELL" else words
        done = subprocess.run(
            [self._here(name, word) for word in command],
            env=self._environment(name),
            capture_output=True,
            check=False,
            timeout=30,
        )
        return done.returncode == 0

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command in a container of a service of ours, as ``docker compose run``."""
        return subprocess.run(
            [*as_user(), *entrypoint(), *command],
            env=self._environment(name),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def postgres_dump(self) -> str:
        """Return all that the database knows."""
        program = self._postgres.program.path / "pg_dump"
        url = self._database_url()
        return subprocess.run([program, url], capture_output=True, text=True, check=True).stdout

    def _prepare(self) -> None:
        config = [str(BIN / "docker-compose"), "-f", str(ROOT / "docker-compose.yml")]
        config += ["--profile", "*", "config"]
        said = subprocess.run(config, capture_output=True, text=True, check=True, env={}).stdout
        whole = yaml.safe_load(said)
        self._configs = {name: each["file"] for name, each in whole["configs"].items()}
        services = whole["services"].items()
        self.services = {k: v for k, v in services if k not in self._leave_out}
        postgres, redis = find_postgres(), find_redis()
        assert postgres
        assert redis
        self._postgres = Postgres(self.folder / "postgres", postgres)
        self.store = S3Server(self.folder / "s3", grace_seconds=0)
        for name in ("programs", "data", *WRITABLE):
            (self.folder / name).mkdir()
            if name in WRITABLE and os.geteuid() == 0:
                os.chown(self.folder / name, USER, USER)
        (self.folder / "programs" / "redis-server").symlink_to(redis.path)
        (self.folder / "programs" / "mc").symlink_to(ROOT / "tests" / "support" / "mc.py")
        self._redis_cli = shutil.which("redis-cli")

    def _may_start(self, name: str) -> bool:
        for other, how in (self.services[name].get("depends_on") or {}).items():
            if other not in self.started:
                return False
            self._wait_until(other, how["condition"])
        return True

    def _wait_until(self, name: str, condition: str) -> None:
        process, deadline = self.started[name], time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            match condition:
                case "service_started":
                    return
                case "service_healthy" if self.is_healthy(name):
                    return
                case "service_completed_successfully" if process and process.returncode == 0:
                    return
            if process and process.returncode:
                process.raise_if_ended()
            time.sleep(0.5)  # each look starts a Python
        raise AssertionError(f"{name}: not {condition}; {process and process.last_lines()}")

    def _start(self, name: str) -> Leashed | None:
        if name == "postgres":
            self._exits.enter_context(self._postgres)
            self._set_secret("POSTGRES_PASSWORD", self._postgres.password)
            anyio.run(self._create_database)
            return None
        if name == "s3":
            self._exits.enter_context(self.store)
            for role, worker in (("ROOT", False), ("WORKER", True)):
                given = self.store.environment(worker=worker)
                self._set_secret(f"S3_{role}_KEY_ID", given["CONVEYOR_STORE_ACCESS_KEY_ID"])
                self._set_secret(f"S3_{role}_SECRET", given["CONVEYOR_STORE_SECRET_ACCESS_KEY"])
            return None
        command = [self._here(name, word) for word in self.services[name]["command"]]
        if "server" in command and "--host" in command:
            command += ["--port", str(self.ports["api"])]
        own = self.services[name].get("entrypoint") or entrypoint()
        start = command if name == "redis" else [*as_user(), *own, *command]
        log = self.logs / f"{name}.log"
        process = Leashed(name, start, log=log, environment=self._environment(name))
        self._exits.enter_context(process)
        return process

    def _set_secret(self, name: str, value: str) -> None:
        secret_files.make(self.secrets_folder)
        file = self.secrets_folder / name
        file.unlink()
        file.write_text(value)

    def _database_url(self) -> str:
        return self._postgres.url.replace("+asyncpg", "").replace("/postgres", "/prefect")

    async def _create_database(self) -> None:
        connection = await asyncpg.connect(self._postgres.url.replace("+asyncpg", ""))
        await connection.execute("CREATE DATABASE prefect")
        await connection.close()

    def _environment(self, name: str) -> dict[str, str]:
        """Return what a container has: its image's variables, and those of the service."""
        own = self.services[name].get("environment") or {}
        ours = {} if name in FOREIGN else image_variables()
        found = {key: self._here(name, value) for key, value in {**ours, **own}.items()}
        path = f"{BIN}:{self.folder / 'programs'}:{os.environ['PATH']}"
        if name == "postgres":
            path = f"{self._postgres.program.path}:{path}"
            found |= {"PGHOST": "127.0.0.1", "PGPORT": str(self._postgres.port)}
        if name == "worker-gpu":  # its GPU is but a name here, and its packages are the CPU's
            found |= {"CONVEYOR_GPU_DEVICES": '["fake-0"]', "CONVEYOR_GPU_REQUIRE_RUNTIME": "false"}
        more = {
            "PATH": path,
            "CONVEYOR_CATALOGUE": str(self._catalogue),
            "CONVEYOR_SECRETS": str(self.secrets_folder),
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.ports.get(name, 0)),
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
            "REDISCLI_PORT": str(self.ports["redis"]),
            "MC_STATE": str(self.told_to_mc),
        }
        return {**found, **more}

    def _here(self, name: str, text: str) -> str:
        """Return a word of the compose file as it is on this machine."""
        # first, since the folder may itself be one in /tmp
        text = re.sub(r"^/app", str(ROOT), text)
        text = re.sub(r"^/(cache|keys|scratch|tmp)(?=/|$)", rf"{self.folder}/\1", text)
        redis = f"dir {self.folder}/data\nport {self.ports['redis']}\nbind 127.0.0.1"
        for there, here in {
            "$$": "$",
            "dir /data": redis,
            "redis-cli": f"redis-cli -p {self.ports['redis']}",
            "postgres:5432": f"127.0.0.1:{self._postgres.port}",
            "redis:6379": f"127.0.0.1:{self.ports['redis']}",
            "prefect-server:4200": f"127.0.0.1:{self.ports['api']}",
            "localhost:4200": f"127.0.0.1:{self.ports['api']}",
            "localhost:8080": f"127.0.0.1:{self.ports.get(name, 0)}",
            "0.0.0.0": "127.0.0.1",
            "/run/secrets": str(self.secrets_folder),
        }.items():
            text = text.replace(there, here)
        if "s3" in self.started:
            text = text.replace("http://s3:9000", self.store.endpoint)
            text = text.replace("http://localhost:9000", self.store.endpoint)
            text = text.replace("/minio/health/live", "/healthz")
        for config in self.services[name].get("configs", ()):
            text = text.replace(config["target"], self._configs[config["source"]])
        return text


def as_user() -> tuple[str, ...]:
    """Return what makes a command run without root's rights, if it has them."""
    return AS_USER if os.geteuid() == 0 else ()


def entrypoint() -> list[str]:
    """Return what the images run before the command."""
    (found,) = re.findall(r"^ENTRYPOINT (\[.+\])$", DOCKERFILE, re.MULTILINE)
    words: list[str] = json.loads(found)
    return words


def image_variables() -> Mapping[str, str]:
    """Return the variables that the Dockerfile sets, but the way to its programs."""
    text = "\n".join(re.findall(r"^ENV ((?:.+\\\n)*.+)$", DOCKERFILE, re.MULTILINE))
    found = dict(re.findall(r"([A-Z_]+)=(\S+)", text))
    return {name: value for name, value in found.items() if name != "PATH"}
