"""A run that waits for a GPU worker: ``python -m tests.support.gpu_caller MARKER``.

Its answer is its last line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from prefect import flow, task

from tasks.outages import bear_outages
from tasks.remote import on_gpu
from tasks.runtime import STAGE, open_workshop
from tests.support.gpu_functions import DieRequest, Stayed, stay_unless_marked


@task(**STAGE)
def stage(marker: Path) -> Stayed:
    return on_gpu(stay_unless_marked, DieRequest(marker=marker), "stays")


@flow
def caller(marker: Path) -> Stayed:
    with open_workshop():
        return stage(marker)


if __name__ == "__main__":
    bear_outages()
    sys.stdout.write(f"{caller(Path(sys.argv[1])).model_dump_json()}\n")
