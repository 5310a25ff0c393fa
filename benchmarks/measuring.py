"""How the benchmarks of many machines measure and print: CPU, memory, tables in Markdown.

The pure parts are tested in ``tests/unit/test_benchmark_parts.py``.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from deployments.processes import StackError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

MIB = 2**20


@contextmanager
def benchmark() -> Iterator[Path]:
    """Lend a folder, and print on what was measured, under which load and how long it took.

    SIGTERM ends it as Ctrl-C does, so that nothing that it has started is left.
    """
    for each in (signal.SIGINT, signal.SIGTERM):  # a job in the background ignores SIGINT
        signal.signal(each, signal.default_int_handler)
    begun, load = time.monotonic(), os.getloadavg()[0]
    try:
        with tempfile.TemporaryDirectory(prefix="conveyor-bench-") as name:
            yield Path(name)
    except StackError as error:
        sys.exit(f"benchmark: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    memory = psutil.virtual_memory().total / 2**30
    print(
        f"\n{psutil.cpu_count()} CPUs, {memory:.0f} GiB, Python {platform.python_version()}, "
        f"Prefect {version('prefect')}; load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at "
        f"the end; took {(time.monotonic() - begun) / 60:.1f} min",
        flush=True,
    )


def row(*cells: object) -> str:
    """Return a row of a table in Markdown; figures have one digit behind the point, or two.

    A float below 10 has two.
    """
    return f"| {' | '.join(map(_cell, cells))} |"


def head(*cells: str) -> str:
    """Return the head of a table in Markdown."""
    return f"{row(*cells)}\n|{'---|' * len(cells)}"


def _cell(cell: object) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.2f}" if abs(cell) < 10 else f"{cell:,.1f}"  # noqa: PLR2004 - said above


class Usage:
    """Inside the ``with``: the CPU seconds of all processes that this one has started.

    Those of processes that have ended are in their parents' account, to the last.
    """

    def __init__(self) -> None:
        """Prepare to look."""
        self._begun: dict[str, float] = {}
        self._since = 0.0
        self.elapsed = 0.0
        self.busy = 0.0
        """Share of the machine's CPUs that was in use, by whomever."""
        self.seconds: dict[str, float] = {}
        """CPU seconds by what used them: ``server``, ``runs`` (with their workers), ``store``."""

    def __enter__(self) -> Self:
        """Begin."""
        psutil.cpu_percent()
        self._since = time.monotonic()
        self._begun = _seconds_by_kind()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the figures."""
        ended = _seconds_by_kind()
        self.elapsed = time.monotonic() - self._since
        self.seconds = {name: used - self._begun.get(name, 0) for name, used in ended.items()}
        self.busy = psutil.cpu_percent() / 100


def kind_of(command: str) -> str:
    """Say what a process on a leash is for, by its command."""
    if any(word in command for word in ("prefect server", "postgres", "redis", "valkey")):
        return "server"
    return "runs" if "deployments.worker" in command else "store"


def _seconds_by_kind() -> dict[str, float]:
    found = {"server": 0.0, "runs": 0.0, "store": 0.0}
    for leash in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            kind = kind_of(" ".join(leash.cmdline()))
            found[kind] += sum(map(_account, [leash, *leash.children(recursive=True)]))
    return found


def _account(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of those children of it that have ended."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.NoSuchProcess:
        return 0.0


def memory_of(words: str) -> float:
    """Return the MiB of this one's descendants whose command has ``words`` in it."""
    return sum(each.memory_info().rss for each in _processes(words)) / MIB


def cpu_of(words: str) -> float:
    """Return the CPU seconds so far of this one's descendants with ``words`` in their command."""
    return sum(sum(each.cpu_times()[:2]) for each in _processes(words))


def _processes(words: str) -> list[psutil.Process]:
    """Return them, without the leashes that hold them."""
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            command = " ".join(each.cmdline())
        except psutil.NoSuchProcess:
            continue
        if words in command and "leash" not in command:
            found.append(each)
    return found


def ratios(figures: Iterable[float]) -> list[float]:
    """Return each figure beside the first."""
    first, *others = figures
    return [1.0, *(each / first for each in others)]
