"""What a Prefect server grows by with each thousand runs: its memory, its database.

    python -m benchmarks.server_growth [--runs 100] [--releases 10]

Real runs of ``release-model``: so many that find their model up to date, then so many that release
it anew. The figures are the growth of each kind, times what makes it a thousand: once on SQLite,
and where PostgreSQL is found, on that and Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machines import MIB, Api, cpu_of, memory_of, server_words, write_catalogue
from deployments.backing import Backing
from deployments.local import POOL, LocalStack

_PLACES = 4
_SERVER = "prefect server"
_SETTLE_SECONDS = 10.0  # events and task runs are written after the fact


class Size(NamedTuple):
    """What the server takes, and what it holds."""

    database_mb: float
    memory_mb: float
    task_runs: int
    events: int
    logs: int


def measured(stack: LocalStack, api: Api) -> Size:
    """Look at the server once it has written what it was told."""
    time.sleep(_SETTLE_SECONDS)
    rows = asyncio.run(_postgres(stack)) if stack.backing.postgres else _sqlite(stack)
    size, events, logs = rows
    return Size(size / MIB, memory_of(_SERVER), api.ask("/task_runs/count"), events, logs)


def _sqlite(stack: LocalStack) -> tuple[int, int, int]:
    import sqlite3

    path = stack.folder / "prefect" / "prefect.db"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        pages, size, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "page_size", "freelist_count")
        )
        events, logs = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - two names
            for table in ("events", "log")
        )
        return (pages - free) * size, events, logs
    finally:
        connection.close()


async def _postgres(stack: LocalStack) -> tuple[int, int, int]:
    import asyncpg

    assert stack.backing.postgres  # noqa: S101 - the caller has looked
    connection: Any = await asyncpg.connect(stack.backing.postgres.url.replace("+asyncpg", ""))
    try:
        size = await connection.fetchval("SELECT pg_database_size(current_database())")
        events = await connection.fetchval("SELECT count(*) FROM events")
        logs = await connection.fetchval("SELECT count(*) FROM log")
        return int(size), int(events), int(logs)
    finally:
        await connection.close()


def grown(before: Size, after: Size, runs: int) -> Size:
    """Return what a thousand runs would add."""
    return Size(*(round((b - a) / runs * 1_000) for a, b in zip(before, after, strict=True)))


def requests_cost(api: Api, run: str, requests: int = 500) -> tuple[float, float]:
    """Return the server's CPU milliseconds for the two looks that never end.

    Args:
        api: Of the server.
        run: Of a model.
        requests: How many of each to make.

    Returns:
        For one look of whoever waits for a run, and for one look of a worker for runs.
    """
    begun = cpu_of(_SERVER)
    for _ in range(requests):
        api.look_at(run)
    waited = cpu_of(_SERVER)
    for _ in range(requests):
        api.ask(f"/work_pools/{POOL}/get_scheduled_flow_runs", work_queue_names=["default"])
    looked = cpu_of(_SERVER)
    return (waited - begun) / requests * 1_000, (looked - waited) / requests * 1_000


def run_all(api: Api, model: str, runs: int, *, force: bool) -> str:
    """Run a model so many times, and return the last run.

    Raises:
        RuntimeError: One did not complete.
    """
    waiting = [
        api.start("release-model/default", {"model": model, "force": force}) for _ in range(runs)
    ]
    for each in waiting:
        state = api.end_of(each)["state"]
        if state["type"] != "COMPLETED":
            raise RuntimeError(state["message"])
    return waiting[-1]


def measure(folder: Path, model: str, runs: int, releases: int, *, whole: bool) -> None:
    """Measure one server, and print."""
    with LocalStack(folder, at_once=_PLACES, whole=whole) as stack, Api(stack) as api:
        print(f"{server_words(stack)}: a thousand runs add", flush=True)
        run_all(api, model, 1, force=True)
        last = run_all(api, model, _PLACES, force=False)  # caches fill, files get their first pages
        start = measured(stack, api)
        print(f"  (at the start {start.database_mb:.0f} MiB, memory {start.memory_mb:.0f} MiB)")
        waiting, looking = requests_cost(api, last)
        print(
            f"  (server's CPU: {waiting:.1f} ms a look at a run, {looking:.1f} ms a worker's look)"
        )
        for words, number, force in (("up to date", runs, False), ("releases", releases, True)):
            begun = measured(stack, api)
            run_all(api, model, number, force=force)
            more = grown(begun, measured(stack, api), number)
            print(
                f"  {words:10} ({number} run): database {more.database_mb} MiB, "
                f"server's memory {more.memory_mb} MiB, task runs {more.task_runs}, "
                f"events {more.events}, log lines {more.logs}",
                flush=True,
            )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.server_growth", description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--releases", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (model,) = write_catalogue(folder / "models", 1)
        os.environ["CONVEYOR_CATALOGUE"] = str(folder / "models")
        found = Backing.found(folder, 0).postgres is not None
        for whole in (False, True) if found else (False,):
            kind = "whole" if whole else "sqlite"
            measure(folder / kind, model, options.runs, options.releases, whole=whole)


if __name__ == "__main__":
    main()
