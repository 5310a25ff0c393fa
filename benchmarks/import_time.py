"""How long a worker takes to load the flows, against Prefect alone; the target is below 1.5.

    .venv/bin/python benchmarks/import_time.py

Each import is timed in a fresh process, the two kinds in turn, so that other load on the
machine hits both. The figure is the ratio of the medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

TARGET = 1.5
ROUNDS = 7
IMPORTS = {
    "prefect": "import prefect",
    "flows": "import flows.release_model, flows.release_catalog",
}
_TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def seconds(statement: str) -> float:
    """Return how long ``statement`` takes in a fresh process."""
    command = [sys.executable, "-c", _TIMED.format(statement)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> int:
    """Measure, print, and return 1 if the target is missed."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for each in IMPORTS.values():
        seconds(each)  # once, so that both find compiled files on a warm disk
    for _ in range(ROUNDS):
        for name, statement in IMPORTS.items():
            times[name].append(seconds(statement))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["flows"] / medians["prefect"]
    for name, value in medians.items():
        print(f"import {name:8} {value:.2f} s (median of {ROUNDS})")
    print(f"ratio           {ratio:.2f} (target: below {TARGET})")
    return 0 if ratio < TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
