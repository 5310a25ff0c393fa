"""Models an hour: a catalogue of small models, on 1, 2 and 4 workers of one place each.

    python -m benchmarks.catalogue [--models 40] [--workers 1 2 4] [--whole]

The models are linear ones and trees from scikit-learn, with ONNX as the only target; each is
released anew (`force`). Beside models an hour stands what bends them: the CPU seconds that a model
takes, of all processes of the stack, and how busy the machine's CPUs were.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.machines import Api, Usage, ratios, server_words, worker, write_catalogue
from deployments.local import POOL, LocalStack


class Rate(NamedTuple):
    """One pass through the catalogue."""

    workers: int
    models_an_hour: float
    cpu_seconds: float
    """Of one model."""
    share: float
    """Of the machine's CPUs, by this stack."""
    busy: float
    """Of the machine's CPUs, by whomever."""


def release(api: Api, names: list[str], workers: int) -> Rate:
    """Release all of them once, with so many at a time.

    Raises:
        RuntimeError: One was not released.
    """
    with Usage() as usage:
        parameters = {"models": names, "at_once": workers, "force": True}
        run = api.end_of(api.start("release-catalog/default", parameters))
    if run["state"]["type"] != "COMPLETED":
        raise RuntimeError(run["state"]["message"])
    seconds, cpus = run["total_run_time"], psutil.cpu_count() or 1
    return Rate(
        workers,
        len(names) / seconds * 3_600,
        usage.seconds / len(names),
        usage.seconds / seconds / cpus,
        usage.busy,
    )


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(prog="benchmarks.catalogue", description=__doc__)
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--whole", action="store_true", help="on PostgreSQL and Redis")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as started:
        folder = Path(name)
        names = write_catalogue(folder / "models", options.models)
        os.environ["CONVEYOR_CATALOGUE"] = str(folder / "models")
        whole = options.whole
        stack = started.enter_context(LocalStack(folder / "stack", at_once=1, whole=whole))
        api = started.enter_context(Api(stack))
        print(f"server: {server_words(stack)}; {psutil.cpu_count()} CPUs", flush=True)
        release(api, names[:1], 1)  # warms the disk
        print("workers  load  models/h  ratio  CPU s a model  CPUs: ours, all", flush=True)
        running, rates = 1, []
        for workers in options.workers:
            for number in range(running, workers):
                options_ = ("--pool", POOL, "--work-queue", "default", "--limit", "1")
                started.enter_context(worker(stack, f"more-{number}", *options_))
            running = max(running, workers)
            rates.append(rate := release(api, names, workers))
            ratio = ratios([each.models_an_hour for each in rates])[-1]
            print(
                f"{workers:7} {os.getloadavg()[0]:5.1f} {rate.models_an_hour:9.0f} {ratio:6.2f} "
                f"{rate.cpu_seconds:14.1f} {rate.share:10.0%} {rate.busy:5.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
