"""Models an hour: a catalogue of small models, on 1, 2 and 4 workers of one place each.

    python -m benchmarks.catalogue [--models 40] [--workers 1 2 4] [--whole]

The models are linear ones and trees from scikit-learn, with ONNX as the only target; each is
released anew (`force`). Beside models an hour stands what bends them: the CPU seconds that a model
takes, in its run (with the worker and the frameworks' processes) and in the server, and how busy
the machine's CPUs were.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from typing import NamedTuple

import psutil

from benchmarks.machines import SELDOM, Api, worker, write_catalogue
from benchmarks.measuring import Usage, benchmark, head, ratios, row
from deployments.local import POOL, LocalStack


class Rate(NamedTuple):
    """One pass through the catalogue."""

    models_an_hour: float
    run_seconds: float
    """CPU seconds of a model's run."""
    server_seconds: float
    """CPU seconds of the server, a model."""
    ours: float
    """Share of the machine's CPUs, by this stack."""
    busy: float
    """Share of the machine's CPUs, by whomever."""


def release(api: Api, names: list[str], at_once: int) -> Rate:
    """Release all of them once, with so many at a time.

    Raises:
        RuntimeError: One was not released.
    """
    with Usage() as usage:
        parameters = {"models": names, "at_once": at_once, "force": True}
        run = api.end_of(api.start("release-catalog/default", parameters), SELDOM)
    if run["state"]["type"] != "COMPLETED":
        raise RuntimeError(run["state"]["message"])
    seconds, cpus = run["total_run_time"], psutil.cpu_count() or 1
    return Rate(
        len(names) / seconds * 3_600,
        usage.seconds["runs"] / len(names),
        usage.seconds["server"] / len(names),
        sum(usage.seconds.values()) / usage.elapsed / cpus,
        usage.busy,
    )


def print_passes(stack: LocalStack, api: Api, names: list[str], steps: list[int]) -> None:
    """Release all with each number of workers in turn, and print what each pass gave."""
    costs = ("CPU s a model: its run", "the server")
    shares = ("of the CPUs: this stack", "all", "load")
    print(head("workers", "models an hour", "ratio", *costs, *shares), flush=True)
    running, rates = 1, []
    with ExitStack() as started:
        for workers in steps:
            for number in range(running, workers):
                options = ("--pool", POOL, "--work-queue", "default", "--limit", "1")
                started.enter_context(worker(stack, f"more-{number}", *options))
            running = max(running, workers)
            rates.append(rate := release(api, names, workers))
            ratio = ratios(each.models_an_hour for each in rates)[-1]
            load = f"{os.getloadavg()[0]:.1f}"
            cells = (rate.run_seconds, rate.server_seconds, f"{rate.ours:.0%}", f"{rate.busy:.0%}")
            print(row(workers, f"{rate.models_an_hour:.0f}", ratio, *cells, load), flush=True)


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(prog="benchmarks.catalogue", description=__doc__)
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--whole", action="store_true", help="with Redis, services apart")
    options = parser.parse_args()
    with benchmark() as folder:
        names = write_catalogue(folder / "models", options.models)
        os.environ["CONVEYOR_CATALOGUE"] = str(folder / "models")
        whole = options.whole
        with LocalStack(folder / "stack", at_once=1, whole=whole) as stack, Api(stack) as api:
            print(f"{stack.backing.words}; {options.models} models\n", flush=True)
            release(api, names[:1], 1)  # warms the disk
            print_passes(stack, api, names, sorted(options.workers))


if __name__ == "__main__":
    main()
