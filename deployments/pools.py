"""The work pools, declared as code: what they are called, and how their runs are started.

| kind | a run is | its GPU |
|---|---|---|
| `process` | a process of `python -m deployments.worker` | the one that the worker lends it |
| `docker` | a container beside the worker | all of its host: one run a host (`--limit 1`) |
| `kubernetes` | a pod | the one that the cluster's device plugin gives to no other pod |

The templates of the last two stand in ``deployments/templates``; that of processes is Prefect's
own. Each gives its runs the variables on which the automations count, whoever started the worker.
None has a secret in it: templates can be read by everybody who reaches the server.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from deployments.tuning import RUN, START_SECONDS, PoolKind

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

KINDS: tuple[PoolKind, ...] = get_args(PoolKind)
POOLS = {
    "cpu": "Trains, downloads, exports, verifies and publishes.",
    "gpu": "Trains and compares models on a GPU.",
}

_TEMPLATES = Path(__file__).with_name("templates")


def template_of(pool: str, kind: PoolKind) -> dict[str, Any]:
    """Return the base job template of a pool."""
    template: dict[str, Any]
    if kind == "process":
        template = ProcessWorker.get_default_base_job_template()
    else:
        template = json.loads((_TEMPLATES / f"{kind}-{pool}.json").read_text("utf-8"))
    variables = RUN | {"CONVEYOR_GPU_START_SECONDS": f"{START_SECONDS[kind]:.0f}"}
    env = template["variables"]["properties"]["env"]
    env["default"] = variables | env.get("default", {})
    return template


async def create_pools(client: PrefectClient, kind: PoolKind = "process") -> None:
    """Create the work pools, or bring them up to date.

    Raises:
        SystemExit: One exists as a pool of another kind, which Prefect cannot change.
    """
    for name, description in POOLS.items():
        template = template_of(name, kind)
        try:
            found = await client.read_work_pool(name)
        except ObjectNotFound:
            pool = WorkPoolCreate(
                name=name, type=kind, description=description, base_job_template=template
            )
            await client.create_work_pool(pool)
            continue
        if found.type != kind:
            sys.exit(
                f"pool '{name}': is of another kind (expected {kind}, got {found.type}). Keep its "
                f"kind (--pools {found.type}), or stop its workers and: prefect work-pool delete "
                f"{name}"
            )
        update = WorkPoolUpdate(description=description, base_job_template=template)
        await client.update_work_pool(name, update)
