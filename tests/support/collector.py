"""A process that collects garbage, and dies where it is told.

python -m tests.support.collector MODEL STEP: keeps the last version alone, takes every silent
run for dead, and kills itself when it reports its STEPth step; the store's settings are in the
environment.
"""

from __future__ import annotations

import os
import signal
import sys

from tasks.domain.garbage import KeepPolicy, plan_removals
from tasks.settings import store_settings
from tasks.storage.garbage import collect, look
from tasks.storage.s3_inventory import open_inventory

if __name__ == "__main__":
    model, fatal_step = sys.argv[1], int(sys.argv[2])
    store = open_inventory(store_settings())
    steps = iter(range(1, 1_000))

    def report(_share: float, _text: str) -> None:
        if next(steps) == fatal_step:
            os.kill(os.getpid(), signal.SIGKILL)

    plan = plan_removals(look(store, model), KeepPolicy(last=1, idle_days=7))
    collect(store, plan.removals, report)
