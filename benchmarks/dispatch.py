"""How soon a run begins, and what the way to a GPU worker costs.

    python -m benchmarks.dispatch [--rounds 5] [--whole]

First: the seconds from ``prefect deployment run`` (the API's call) to the first stage of
``release-model``, with Prefect's own settings, and with ours and workers that look for runs each
15, 2 and 1 s. The model's stages get one second, so that a run fails in its first one. Two stacks
are up at once, each setting has its own queue and worker, and they take turns; a first round is
not counted.
Second: a stage that does nothing, called in place and sent to a GPU worker whose GPU is a name.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from contextlib import ExitStack
from typing import NamedTuple

from benchmarks.machines import (
    Api,
    DefaultStack,
    seconds_between,
    worker,
    write_catalogue,
)
from benchmarks.measuring import benchmark, head, ratios, row
from deployments.local import POOL, LocalStack

_POLL = "PREFECT_WORKER_QUERY_SECONDS"
_PREFECTS_POLL = 10
_HOP_SECONDS = 120.0
_TICK_SECONDS = 0.1


class Setting(NamedTuple):
    """One way to run a worker."""

    name: str
    api: Api
    queue: str
    poll: int


def first_stage(setting: Setting, model: str) -> tuple[float, float]:
    """Start a run; return the seconds to its process, and from there to its first stage."""
    # else all would come right after a look: the run before ended in one
    time.sleep(random.uniform(0, setting.poll))  # noqa: S311 - not a secret
    parameters = {"model": model, "force": True}
    run = setting.api.start("release-model/default", parameters, setting.queue)
    ended = setting.api.end_of(run)
    stage = setting.api.first_stage(run)
    begun = seconds_between(ended["start_time"], stage)
    return seconds_between(ended["created"], stage) - begun, begun


def with_workers(started: ExitStack, ours: LocalStack, prefects: LocalStack) -> list[Setting]:
    """Start a worker for each setting, each with a queue of its own."""
    settings = []
    for name, stack, poll in (
        ("Prefect's own, each 10 s", prefects, _PREFECTS_POLL),
        ("ours, each 15 s", ours, 15),
        ("ours, each 2 s (the set)", ours, 2),
        ("ours, each 1 s (`make up`)", ours, 1),
    ):
        queue = f"each-{poll}"
        api = started.enter_context(Api(stack))
        api.ask(f"/work_pools/{POOL}/queues", name=queue)
        options = ("--pool", POOL, "--work-queue", queue)
        started.enter_context(worker(stack, queue, *options, variables={_POLL: str(poll)}))
        settings.append(Setting(name, api, queue, poll))
    return settings


def print_first_stages(settings: list[Setting], model: str, rounds: int) -> None:
    """Measure in turns, and print the medians."""
    took: dict[str, list[tuple[float, float]]] = {each.name: [] for each in settings}
    for number in range(rounds + 1):
        for each in settings:
            seconds = first_stage(each, model)
            if number:  # the first one of each reads its files from the disk
                took[each.name].append(seconds)
    middles = [statistics.median(map(sum, took[each.name])) for each in settings]
    print(head("a worker looks for runs", "to the process", "on to the stage", "in all", "ratio"))
    for each, middle, ratio in zip(settings, middles, ratios(middles), strict=True):
        parts = (statistics.median(part) for part in zip(*took[each.name], strict=True))
        print(row(each.name, *(f"{part:.1f} s" for part in (*parts, middle)), ratio), flush=True)


def hops(stack: LocalStack, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a stage that does nothing, here and on a GPU worker.

    Raises:
        TimeoutError: They are not done.
    """
    variables = {
        "CONVEYOR_GPU_DEVICES": '["fake-0"]',
        "CONVEYOR_GPU_LOCKS": str(stack.folder / "gpus"),
        "CONVEYOR_GPU_REQUIRE_RUNTIME": "false",
    }
    with (
        worker(stack, "gpu", "--pool", "gpu", variables=variables),
        stack.run("gpu-hop", "benchmarks.gpu_hop", str(rounds + 1)) as caller,
    ):
        deadline = time.monotonic() + _HOP_SECONDS * (rounds + 1)
        while caller.returncode is None:
            if time.monotonic() > deadline:
                raise TimeoutError(caller.last_lines())
            time.sleep(_TICK_SECONDS)
        if caller.returncode:
            caller.raise_if_ended()
        found: dict[str, list[float]] = json.loads(caller.log.read_text("utf-8").splitlines()[-1])
    return {where: seconds[1:] for where, seconds in found.items()}


def print_hops(stack: LocalStack, rounds: int) -> None:
    """Measure, and print the medians."""
    took = hops(stack, rounds)
    print("\n" + head("a stage that does nothing", "median", "slowest", "more than here"))
    here = statistics.median(took["here"])
    for where, words in (("here", "here"), ("there", "on a GPU worker")):
        middle = statistics.median(took[where])
        print(row(words, f"{middle:.2f} s", f"{max(took[where]):.2f} s", f"{middle - here:.1f} s"))


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(prog="benchmarks.dispatch", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", action="store_true", help="with Redis, services apart")
    options = parser.parse_args()
    with benchmark() as folder:
        (model,) = write_catalogue(folder / "models", 1, timeout=1)
        os.environ["CONVEYOR_CATALOGUE"] = str(folder / "models")
        with LocalStack(folder / "ours", whole=options.whole) as ours:
            print(f"{ours.backing.words}; medians of {options.rounds}\n", flush=True)
            with ExitStack() as started:
                prefects = DefaultStack(folder / "prefects", whole=options.whole)
                settings = with_workers(started, ours, started.enter_context(prefects))
                print_first_stages(settings, model, options.rounds)
            print_hops(ours, options.rounds)


if __name__ == "__main__":
    main()
