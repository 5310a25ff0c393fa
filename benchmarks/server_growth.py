"""What a Prefect server costs: what each thousand runs add to it, and what each look at it takes.

    python -m benchmarks.server_growth [--runs 40] [--releases 8]

Real runs of ``release-model``: so many that find their model up to date, then so many that release
it anew. The figures are the growth of each kind, times what makes it a thousand: once of a server
in one process on PostgreSQL, and where there is Redis, once of one with its services apart. Memory
and CPU are those of Prefect's own processes, without PostgreSQL's and Redis'.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from benchmarks.machines import SELDOM, Api, write_catalogue
from benchmarks.measuring import MIB, benchmark, cpu_of, head, memory_of, row
from deployments.databases import find_postgres, find_redis
from deployments.local import POOL, LocalStack
from deployments.processes import StackError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PLACES = 4
_REQUESTS = 300
_LISTED, _LISTS = 200, 20
_SERVER = "prefect server"
_API, _SERVICES = f"{_SERVER} start", f"{_SERVER} services"
_SETTLE_SECONDS = 10.0  # events and task runs are written after the fact


class Size(NamedTuple):
    """What the server takes, and what it holds."""

    database_mb: float
    events_mb: float
    memory_mb: float
    task_runs: float
    events: float
    logs: float


def measured(stack: LocalStack, api: Api) -> Size:
    """Look at the server once it has written what it was told."""
    time.sleep(_SETTLE_SECONDS)
    size, of_events, events, logs = asyncio.run(_postgres(stack))
    runs = api.ask("/task_runs/count")
    return Size(size / MIB, of_events / MIB, memory_of(_SERVER), runs, events, logs)


_QUESTIONS = (
    "SELECT pg_database_size(current_database())",
    "SELECT pg_total_relation_size('events') + pg_total_relation_size('event_resources')",
    "SELECT count(*) FROM events",
    "SELECT count(*) FROM log",
)


async def _postgres(stack: LocalStack) -> list[int]:
    import asyncpg

    assert stack.backing.postgres  # noqa: S101 - main has looked
    connection: Any = await asyncpg.connect(stack.backing.postgres.url.replace("+asyncpg", ""))
    try:
        return [int(await connection.fetchval(question)) for question in _QUESTIONS]
    finally:
        await connection.close()


def grown(before: Size, after: Size, runs: int) -> Size:
    """Return what a thousand runs would add."""
    return Size(*(round((b - a) / runs * 1_000) for a, b in zip(before, after, strict=True)))


class Cost(NamedTuple):
    """The CPU that the server takes."""

    idle: float
    """Share of a core, when only the stack's two workers look for runs."""
    waiting_ms: float
    """Of one look at a run, as whoever waits for it does."""
    looking_ms: float
    """Of one look of a worker for runs."""
    listing_ms: float
    """Of one list of 200 runs that are under way."""


def costs(api: Api, model: str, run: str) -> Cost:
    """Measure what the looks cost that never end; ``run`` is any run, ``model`` any model."""
    before, since = cpu_of(_SERVER), time.monotonic()
    time.sleep(_SETTLE_SECONDS)
    idle = (cpu_of(_SERVER) - before) / (time.monotonic() - since)

    def ms_of(times: int, request: Callable[[], object]) -> float:
        with Spent(idle) as spent:
            for _ in range(times):
                request()
        return max(0.0, (spent.api + spent.services) / times * 1_000)

    waiting = ms_of(_REQUESTS, lambda: api.look_at(run))
    look = f"/work_pools/{POOL}/get_scheduled_flow_runs"
    looking = ms_of(_REQUESTS, lambda: api.ask(look, work_queue_names=["default"]))
    next_year = datetime.now(UTC) + timedelta(days=365)
    for _ in range(_LISTED):
        api.start("release-model/default", {"model": model}, due=next_year)
    time.sleep(_SETTLE_SECONDS)
    scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    listing = ms_of(_LISTS, lambda: api.ask("/flow_runs/filter", flow_runs=scheduled))
    return Cost(idle, waiting, looking, listing)


def run_all(api: Api, model: str, runs: int, *, force: bool) -> str:
    """Run a model so many times, and return the last run.

    Raises:
        RuntimeError: One did not complete.
    """
    waiting = [
        api.start("release-model/default", {"model": model, "force": force}) for _ in range(runs)
    ]
    for each in waiting:
        state = api.end_of(each, SELDOM)["state"]
        if state["type"] != "COMPLETED":
            raise RuntimeError(state["message"])
    return waiting[-1]


class Spent:
    """Inside the ``with``: the CPU seconds of a server's processes beyond what they take idle."""

    def __init__(self, idle: float) -> None:
        """Prepare; ``idle`` is the share of a core that they take when nothing runs."""
        self._idle = idle
        self.api = 0.0
        self.services = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        self._since = time.monotonic()
        self.api, self.services = cpu_of(_API), cpu_of(_SERVICES)
        return self

    def __exit__(self, *_: object) -> None:
        """Take the figures."""
        idle = self._idle * (time.monotonic() - self._since)
        self.api = cpu_of(_API) - self.api
        self.services = cpu_of(_SERVICES) - self.services
        share = self.api / ((self.api + self.services) or 1)
        self.api -= idle * share
        self.services -= idle * (1 - share)


def measure(
    folder: Path, model: str, runs: int, releases: int, *, whole: bool
) -> tuple[list[str], str]:
    """Measure one server; return the rows of both tables."""
    growth = []
    with LocalStack(folder, at_once=_PLACES, whole=whole) as stack, Api(stack) as api:
        words = stack.backing.words
        run_all(api, model, 1, force=True)
        last = run_all(api, model, _PLACES, force=False)  # caches fill, files get their first pages
        size = measured(stack, api)
        cost = costs(api, model, last)
        each_ms = (cost.looking_ms, cost.waiting_ms, cost.listing_ms)
        cells = (f"{cost.idle:.0%}", *each_ms, f"{size.memory_mb:.0f} MiB")
        for kind, number, force in (("up to date", runs, False), ("released", releases, True)):
            begun = measured(stack, api)
            with Spent(cost.idle) as spent:
                run_all(api, model, number, force=force)
                ended = measured(stack, api)
            more = (f"{each:,}" for each in grown(begun, ended, number))
            each = (spent.api / number, spent.services / number)
            growth.append(row(words, f"{kind} ({number} runs)", *more, *each))
            print(f"({words}: {kind}, measured)", flush=True)
        after = f"{memory_of(_SERVER):.0f} MiB after {runs + releases + _PLACES + 1} runs"
        return growth, row(words, *cells, after)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.server_growth", description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--releases", type=int, default=8)
    options = parser.parse_args()
    growth: list[str] = []
    looks: list[str] = []
    with benchmark() as folder:
        (model,) = write_catalogue(folder / "models", 1)
        os.environ["CONVEYOR_CATALOGUE"] = str(folder / "models")
        if find_postgres() is None:
            raise StackError("The sizes are PostgreSQL's, and there is none on this machine.")
        for whole in (False, True) if find_redis() else (False,):
            place = folder / ("apart" if whole else "one")
            rows, look = measure(place, model, options.runs, options.releases, whole=whole)
            growth += rows
            looks.append(look)
        sizes = ("database MiB", "of that events", "memory MiB", "task runs", "events", "log lines")
        cpu = ("CPU s a run: API", "services apart")
        print(
            head("server", "a thousand runs that are", *sizes, *cpu), *growth, sep="\n", end="\n\n"
        )
        looks_ = ("ms a worker's look", "ms a look at a run", f"ms a list of {_LISTED} runs")
        print(head("server", "CPU, idle", *looks_, "memory", "and later"), *looks, sep="\n")


if __name__ == "__main__":
    main()
