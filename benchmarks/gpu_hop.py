"""The part of ``benchmarks.dispatch`` that is a caller: one stage here, and on a GPU worker.

``python -m benchmarks.gpu_hop ROUNDS``, in the environment of a stack with a GPU worker; prints
the seconds as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time

from prefect import flow, task

from tasks.remote import on_gpu
from tasks.runtime import STAGE, open_workshop
from tests.support.gpu_functions import Stayed, StayRequest, stay


@task(**STAGE)
def here(who: int) -> Stayed:
    """Do nothing, in place."""
    return stay.function(StayRequest(seconds=0, who=who))


@task(**STAGE)
def there(who: int) -> Stayed:
    """Do nothing, on a GPU worker."""
    return on_gpu(stay, StayRequest(seconds=0, who=who), f"stay {who}")


@flow
def hop(rounds: int) -> dict[str, list[float]]:
    """Call both in turn."""
    took: dict[str, list[float]] = {"here": [], "there": []}
    with open_workshop():
        for who in range(rounds):
            for name, stage in (("here", here), ("there", there)):
                begun = time.perf_counter()
                stage(who)
                took[name].append(time.perf_counter() - begun)
    return took


if __name__ == "__main__":
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "PREFECT__WORKER_NAME": "here"}
    print(json.dumps(hop(int(sys.argv[1]))))
