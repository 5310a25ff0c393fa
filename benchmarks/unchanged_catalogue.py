"""A whole run of ``release-catalog`` in which nothing has changed.

    python -m benchmarks.unchanged_catalogue [--models 1000] [--rounds 3] [--whole]

The releases are those of ``unchanged.py``, in the store of a local stack. In turn are timed: the
check alone, in this process; the run that ``prefect deployment run release-catalog/default``
starts, from its start to its end; and the same from the command on. It ends with an error if one
model is not found up to date.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.machines import Api
from benchmarks.measuring import Usage, benchmark, head, ratios, row
from benchmarks.unchanged import prepare
from deployments.local import LocalStack
from tasks import settings
from tasks.catalogue import load_catalogue
from tasks.standing import find_up_to_date
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from pathlib import Path


def check(catalogue: Path, models: int) -> float:
    """Return the seconds of the check alone.

    Raises:
        RuntimeError: A model is not up to date.
    """
    begun = time.perf_counter()
    found = find_up_to_date(load_catalogue(catalogue))
    seconds = time.perf_counter() - begun
    if len(found) != models:
        message = f"{len(found)} of {models} models are up to date"
        raise RuntimeError(message)
    return seconds


def whole_run(api: Api, models: int) -> tuple[float, float, dict[str, float]]:
    """Return the seconds of the run, those from the command on, and whose CPU seconds it took.

    Raises:
        RuntimeError: A model was not up to date, or the run failed.
    """
    begun = time.perf_counter()
    with Usage() as usage:
        run = api.end_of(api.start("release-catalog/default", {}))
        seconds = time.perf_counter() - begun
    started = api.ask("/flow_runs/count", flows={"name": {"any_": ["release-model"]}})
    if run["state"]["type"] != "COMPLETED" or started:
        message = f"{run['state']['message']} ({started} of {models} models got a run)"
        raise RuntimeError(message)
    return run["total_run_time"], seconds, usage.seconds


def print_rounds(api: Api, catalogue: Path, models: int, rounds: int) -> None:
    """Measure in turns, and print the medians."""
    alone, runs = [], []
    for _ in range(rounds):
        alone.append(check(catalogue, models))
        runs.append(whole_run(api, models))
    middles = [
        statistics.median(each)
        for each in (alone, [run[0] for run in runs], [run[1] for run in runs])
    ]
    names = ("the check alone", "the whole run", "from the command to its end")
    print(head("", "seconds", "models a second", "ratio"))
    for name, middle, ratio in zip(names, middles, ratios(middles), strict=True):
        print(row(name, middle, models / middle, ratio))
    used = {kind: statistics.median(run[2][kind] for run in runs) for kind in runs[0][2]}
    print(
        f"\nCPU seconds of a run: {used['runs']:.1f} in its process and its worker, "
        f"{used['server']:.1f} in the Prefect server, {used['store']:.1f} in the store"
    )


def main() -> None:
    """Publish, measure, print the ratios."""
    parser = argparse.ArgumentParser(prog="benchmarks.unchanged_catalogue", description=__doc__)
    parser.add_argument("--models", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="with Redis, services apart")
    options = parser.parse_args()
    with benchmark() as folder:
        catalogue = folder / "models"
        os.environ["CONVEYOR_CATALOGUE"] = str(catalogue)
        with LocalStack(folder / "stack", whole=options.whole) as stack, Api(stack) as api:
            for name, value in stack.environment().items():
                if name.startswith("CONVEYOR_STORE_"):
                    os.environ[name] = value
            settings.store_settings.cache_clear()
            print(f"{stack.backing.words}; {options.models} models", flush=True)
            prepare(open_store(settings.store_settings()), folder, options.models)
            print_rounds(api, catalogue, options.models, options.rounds)


if __name__ == "__main__":
    main()
