"""One model from recipe to bucket, against the plain script that does the same conversions.

    .venv/bin/python benchmarks/end_to_end.py [ROUNDS]

Ours is `prefect deployment run --watch`'s flow run on a warm local stack: from the moment the
worker has started the flow's process to its end, and as a second figure from the command to
its end. The plain script (`benchmarks/plain/resnet50.py`) is timed as a whole process. They
run in turn; the figure is the ratio of the medians. The target is at most 1.5.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deployments.local import LocalStack
from deployments.runs import run_all
from tasks.settings import StoreSettings
from tasks.storage import publishing
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from tasks.domain.release import Manifest

TARGET = 1.5
MODEL = "resnet50-seeded"
_PLAIN = Path(__file__).parent / "plain" / "resnet50.py"


class Timed(NamedTuple):
    """The seconds of one of our runs."""

    flow: float
    command: float
    manifest: Manifest


def ours(stack: LocalStack) -> Timed:
    """Release the model once."""
    started = time.perf_counter()
    *_, (run,) = run_all(stack, [MODEL], at_once=1, force=True)
    if not run.released:
        sys.exit(f"{MODEL}: {run.message}")
    seconds = time.perf_counter() - started
    store = open_store(StoreSettings.model_validate(stack.store_settings()))
    manifest = publishing.latest(store, MODEL)
    assert manifest is not None  # noqa: S101 - it was just released
    return Timed(run.seconds, seconds, manifest)


def plain(rows: int) -> tuple[float, str]:
    """Run the plain script once."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(_PLAIN), folder, str(rows)],
            capture_output=True,
            text=True,
            check=True,
        )
        return time.perf_counter() - started, done.stdout


def main() -> int:
    """Measure, print, and return 1 if the target is missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder, LocalStack(Path(folder)) as stack:
        first = ours(stack)  # downloads the pictures, warms the disk
        rows = sum(probe.rows for probe in first.manifest.probes)
        _, laps = plain(rows)
        runs, scripts = [], []
        for _ in range(rounds):
            runs.append(ours(stack))
            scripts.append(plain(rows)[0])
    script = statistics.median(scripts)
    flow = statistics.median(run.flow for run in runs)
    command = statistics.median(run.command for run in runs)
    print(f"{MODEL}: {rows} rows compared, medians of {rounds} rounds")
    print(f"  plain script              {script:6.1f} s")
    print(
        f"  flow run                  {flow:6.1f} s   ratio {flow / script:.2f} (target {TARGET})"
    )
    print(f"  from command to its end   {command:6.1f} s   ratio {command / script:.2f}")
    print("where ours goes (stages of the last run; some run side by side):")
    for stage, cost in runs[-1].manifest.costs.items():
        print(f"  {stage:16} {cost.seconds:6.1f} s   peak {cost.peak_mb:6,.0f} MiB")
    print("where the plain script goes:")
    print("".join(f"  {line}\n" for line in laps.splitlines()), end="")
    print(json.dumps({"ratio": round(flow / script, 3), "target": TARGET}))
    return 0 if flow / script <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
