"""One stage of another run, on a worker with a GPU."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from tasks.gpus import hold_lent_gpu
from tasks.perform import gone, perform_stage
from tasks.runtime import open_workshop


@flow(name="gpu-stage", flow_run_name="{title}")
def gpu_stage(title: str, stage: str, request: dict[str, Any], owner: str) -> str | State[None]:
    """Run one stage, and leave its reply where the run that asked for it finds it.

    Started by ``tasks.remote.on_gpu`` alone; see there.

    Args:
        title: What it does, in words.
        stage: Which of ``tasks.gpu_stages``.
        request: Its request, as JSON.
        owner: The flow run that waits for the reply.
    """
    if why := gone(owner):
        return Cancelled(message=why)
    with hold_lent_gpu(), open_workshop(owner):
        perform_stage(stage, request)
    return title
