"""How soon a run begins, and what the way to a GPU worker costs.

    python -m benchmarks.dispatch [--rounds 7] [--whole]

First: the seconds from ``prefect deployment run`` (the API's call) to the first stage of
``release-model``, with workers that look for runs each 1, 2 and 10 s. The model's stages get one
second, so that a run fails in its first one. The settings take turns, each on a queue of its own.
Second: a stage that does nothing, called in place and sent to a GPU worker whose GPU is a name.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.machines import Api, ratios, seconds_between, server_words, worker, write_catalogue
from deployments.local import POOL, LocalStack

_POLLS = (1, 2, 10)


def first_stages(stack: LocalStack, model: str, rounds: int) -> dict[int, list[tuple[float, ...]]]:
    """Return for each poll interval, of each run: seconds to the process and to the first stage."""
    found: dict[int, list[tuple[float, ...]]] = {poll: [] for poll in _POLLS}
    with Api(stack) as api, ExitStack() as workers:
        for poll in _POLLS:
            api.ask(f"/work_pools/{POOL}/queues", name=f"each-{poll}")
            options = ("--pool", POOL, "--work-queue", f"each-{poll}")
            variables = {"PREFECT_WORKER_QUERY_SECONDS": str(poll)}
            workers.enter_context(worker(stack, f"each-{poll}", *options, variables=variables))
        for poll in _POLLS * rounds:
            time.sleep(random.uniform(0, poll))  # noqa: S311 - else all come right after a look
            parameters = {"model": model, "force": True}
            ended = api.end_of(api.start("release-model/default", parameters, f"each-{poll}"))
            stage = api.first_stage(ended["id"])
            begun = seconds_between(ended["start_time"], stage)
            found[poll].append((seconds_between(ended["created"], stage) - begun, begun))
    return found


def hops(stack: LocalStack, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a stage that does nothing, here and on a GPU worker."""
    variables = {
        "CONVEYOR_GPU_DEVICES": '["fake-0"]',
        "CONVEYOR_GPU_LOCKS": str(stack.folder / "gpus"),
        "CONVEYOR_GPU_REQUIRE_RUNTIME": "false",
    }
    with worker(stack, "gpu", "--pool", "gpu", variables=variables):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu_hop", str(rounds)],
            env=stack.full_environment(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(prog="benchmarks.dispatch", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--whole", action="store_true", help="on PostgreSQL and Redis")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (model,) = write_catalogue(folder / "models", 1, timeout=1)
        os.environ["CONVEYOR_CATALOGUE"] = str(folder / "models")
        with LocalStack(folder / "stack", whole=options.whole) as stack:
            print(f"server: {server_words(stack)}; load {os.getloadavg()[0]:.1f}", flush=True)
            stages = first_stages(stack, model, options.rounds)
            middles = [statistics.median(map(sum, stages[poll])) for poll in _POLLS]
            print("poll  to the process  then to the first stage  in all (median)  ratio")
            for poll, middle, ratio in zip(_POLLS, middles, ratios(middles), strict=True):
                process, stage = (
                    statistics.median(each) for each in zip(*stages[poll], strict=True)
                )
                print(f"{poll:3} s {process:13.1f} s {stage:20.1f} s {middle:14.1f} s {ratio:8.2f}")
            took = hops(stack, options.rounds)
    here, there = (statistics.median(took[where]) for where in ("here", "there"))
    print(f"an empty stage: here {here:.2f} s, on a GPU worker {there:.1f} s: {there - here:.1f} s")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
