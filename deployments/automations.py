"""What the Prefect server does by itself, declared as code."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

CRASH_SILENT_RUNS = "crash-silent-runs"
SILENCE_SECONDS = 150.0
"""Five of the heartbeats that ``PREFECT_FLOWS_HEARTBEAT_FREQUENCY`` (30 s) makes runs send.

A server that is away for a minute, which runs bear (``tasks.outages``), misses up to four.
"""

_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "Cancelling", "Paused", "Suspended")


async def create_automations(
    client: PrefectClient, silence_seconds: float = SILENCE_SECONDS
) -> None:
    """Create the automations, or bring them up to date.

    A run whose process is killed together with its worker says nothing of its end; without
    this it would be Running for ever, and hold its place in every limit.

    Args:
        client: Of the server that gets them.
        silence_seconds: After how long without a heartbeat a run counts as crashed; at least 10.
    """
    wanted = _crash_silent_runs(silence_seconds)
    found = await client.read_automations_by_name(wanted.name)
    if found:
        await client.update_automation(found[0].id, wanted)
    else:
        await client.create_automation(wanted)


def _crash_silent_runs(silence_seconds: float) -> AutomationCore:
    ends = {f"prefect.flow-run.{end}" for end in _ENDS}
    return AutomationCore(
        name=CRASH_SILENT_RUNS,
        description="A run that has sent no heartbeat for a while has lost its process.",
        enabled=True,
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *ends},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence_seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=(
                    f"No heartbeat for {silence_seconds:.0f} s: its process, or its machine, is "
                    "gone. Run it again; nothing half done is visible."
                ),
            )
        ],
    )
