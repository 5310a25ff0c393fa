"""PostgreSQL and Redis of this machine: private, kept, and gone with their owner."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import asyncpg
import psutil
import pytest
import yaml
from redis import Redis as Client
from redis.exceptions import AuthenticationError

from deployments.backing import Backing
from deployments.databases import (
    Database,
    Postgres,
    Program,
    Redis,
    find_postgres,
    find_redis,
    kept_secret,
)
from deployments.processes import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
POSTGRES = find_postgres()
BROUGHT = find_postgres(debian=Path("/nowhere"), path="/nowhere")
REDIS = find_redis()
VALKEY = find_redis(path="/nowhere")
OWNER = """
import sys, time
from pathlib import Path
from deployments import databases
kind, find, folder = sys.argv[1:]
with getattr(databases, kind)(Path(folder), getattr(databases, find)()) as server:
    print("up", flush=True)
    time.sleep(600)
"""


def need(program: Program | None, what: str) -> Program:
    if program is None:
        pytest.skip(f"no {what} on this machine: apt-get install it, or the extra 'local'")
    return program


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    folder = tmp_path_factory.mktemp("postgres")
    with Postgres(folder, need(POSTGRES, "PostgreSQL")) as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis"), need(REDIS, "Redis")) as server:
        yield server


def ask(server: Postgres, question: str, **instead: str) -> object:
    """Return the first answer of the database."""

    async def first() -> object:
        connection = await asyncpg.connect(server.url.replace("+asyncpg", ""), **instead)
        try:
            return await connection.fetchval(question)
        finally:
            await connection.close()

    return anyio.run(first)


def processes_of(folder: Path) -> list[psutil.Process]:
    return [
        each
        for each in psutil.process_iter(["cmdline"])
        if each.pid != psutil.Process().pid
        and any(str(folder) in word for word in each.info["cmdline"] or ())
    ]


def listening(server: Database) -> set[str]:
    assert server.process is not None
    (leash,) = [
        each for each in psutil.Process().children() if each.pid == server.process._process.pid
    ]
    return {
        connection.laddr.ip
        for each in leash.children(recursive=True)
        for connection in each.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def test_postgres_lets_in_who_has_the_password(postgres: Postgres) -> None:
    assert ask(postgres, "SELECT current_user") == "prefect"
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(postgres, "SELECT 1", password="wrong")


def test_redis_lets_in_who_has_the_password(redis: Redis) -> None:
    with Client.from_url(redis.url(1), protocol=2) as client:
        assert client.ping()
    with Client(port=redis.port, protocol=2) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def test_they_listen_on_loopback_alone(postgres: Postgres, redis: Redis) -> None:
    assert listening(postgres) == {"127.0.0.1"}
    assert listening(redis) == {"127.0.0.1"}


def test_their_passwords_are_in_no_list_of_processes_and_in_no_open_file(
    postgres: Postgres, redis: Redis
) -> None:
    commands = " ".join(
        word for each in psutil.process_iter(["cmdline"]) for word in each.info["cmdline"] or ()
    )

    for server in (postgres, redis):
        assert server.password not in commands
        for file in server.folder.iterdir():
            if file.is_file() and server.password.encode() in file.read_bytes():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_postgres_does_not_run_as_root(postgres: Postgres) -> None:
    owners = {each.uids().effective for each in processes_of(postgres.folder / "data")}
    owners.discard(0)  # the leash's own

    assert ask(postgres, "SHOW data_directory")
    assert owners


@pytest.mark.parametrize(
    ("program", "what"),
    [(POSTGRES, "PostgreSQL"), (BROUGHT, "PostgreSQL of the extra 'local'")],
    ids=["found-first", "brought-by-a-package"],
)
def test_postgres_keeps_what_it_was_told(
    program: Program | None, what: str, tmp_path: Path
) -> None:
    with Postgres(tmp_path, need(program, what)) as server:
        ask(server, "CREATE TABLE kept AS SELECT 7 AS n")

    with Postgres(tmp_path, need(program, what)) as again:
        assert ask(again, "SELECT n FROM kept") == 7

    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("program", "what"),
    [(REDIS, "Redis"), (VALKEY, "Valkey of the extra 'local'")],
    ids=["found-first", "brought-by-a-package"],
)
def test_redis_keeps_what_it_was_told(program: Program | None, what: str, tmp_path: Path) -> None:
    with (
        Redis(tmp_path, need(program, what)) as server,
        Client.from_url(server.url(), protocol=2) as client,
    ):
        client.set("kept", "7")

    with (
        Redis(tmp_path, need(program, what)) as again,
        Client.from_url(again.url(), protocol=2) as client,
    ):
        assert client.get("kept") == b"7"

    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(("kind", "find"), [("Postgres", "find_postgres"), ("Redis", "find_redis")])
def test_they_end_when_their_owner_is_killed(kind: str, find: str, tmp_path: Path) -> None:
    need(POSTGRES if kind == "Postgres" else REDIS, kind)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, kind, find, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    assert processes_of(tmp_path)

    owner.send_signal(signal.SIGKILL)
    owner.communicate()

    end = time.monotonic() + 20
    while processes_of(tmp_path) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes_of(tmp_path) == []


def test_a_database_that_cannot_start_shows_its_last_lines(tmp_path: Path) -> None:
    program = need(REDIS, "Redis")
    (tmp_path / "appendonlydir").write_text("not a folder")

    with pytest.raises(StackError, match="redis: ended by itself"), Redis(tmp_path, program):
        pass


def test_without_postgres_it_is_sqlite_in_one_process_and_says_so(tmp_path: Path) -> None:
    backing = Backing(redis=Redis(tmp_path, Program(Path("redis-server"), "Redis 7")))

    assert (backing.environment(), backing.is_split, backing.processes) == ({}, False, ())
    assert "SQLite" in backing.words
    assert "apt-get install postgresql" in backing.words


def test_without_redis_the_server_is_one_process_and_says_so(tmp_path: Path) -> None:
    backing = Backing(Postgres(tmp_path, Program(Path("bin"), "PostgreSQL 15.1")), split=True)

    assert set(backing.environment()) == {"PREFECT_SERVER_DATABASE_CONNECTION_URL"}
    assert not backing.is_split
    assert re.match(r"PostgreSQL 15\.1, one process; no Redis was found", backing.words)


def test_a_server_that_needs_no_redis_does_not_miss_it(tmp_path: Path) -> None:
    need(REDIS, "Redis")
    backing = Backing.found(tmp_path, 0, split=False)

    assert not backing.is_split
    assert "Redis" not in backing.words


def test_nothing_is_found_where_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"purelib": str(tmp_path)})

    assert find_postgres(tmp_path) is None
    assert find_redis() is None


def test_the_local_server_has_the_settings_of_the_compose_file(tmp_path: Path) -> None:
    """What is tried here is what runs there."""
    local = Backing(
        Postgres(tmp_path, Program(Path("bin"), "PostgreSQL 15.1")),
        Redis(tmp_path, Program(Path("redis-server"), "Redis 7")),
    ).environment()
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-server"]

    assert set(local) <= set(compose)
    for name, value in local.items():
        assert compose[name] == value or name.endswith("_URL"), name
    # the clean-up queue must not be left to its default
    assert {name for name in local if name.endswith("_URL")} == {
        name for name in compose if name.endswith("_URL")
    }


def test_a_secret_is_made_once_and_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "password"

    first, second = kept_secret(path), kept_secret(path)

    assert first == second
    assert len(first) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["password"]


MAKER = """
import os, signal, sys
from pathlib import Path
from deployments import databases
def cut_short(size):
    os.kill(os.getpid(), signal.SIGKILL)
databases.secrets.token_hex = lambda size: "ab" * size if size < 16 else cut_short(size)
databases.kept_secret(Path(sys.argv[1]))
"""


def test_a_start_that_is_killed_before_the_secret_is_written_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "password"
    killed = subprocess.run([sys.executable, "-c", MAKER, path], cwd=ROOT, check=False)

    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(kept_secret(path)) == 32


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_secret_is_no_secret(content: str, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(content)

    with pytest.raises(StackError, match=r"password: the password is empty\. Remove"):
        kept_secret(path)
