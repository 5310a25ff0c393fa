"""What the Prefect server does by itself, declared as code."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.events import ResourceSpecification

from deployments.tuning import START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefect.client.orchestration import PrefectClient

CRASH_SILENT_RUNS = "crash-silent-runs"
CRASH_RUNS_THAT_DO_NOT_START = "crash-runs-that-do-not-start"
START_CRASHED_RUNS_AGAIN = "start-crashed-runs-again"
GIVE_UP_RUNS_THAT_KEEP_CRASHING = "give-up-runs-that-keep-crashing"

RESTARTING = "Restarting"
"""Name of the state of a crashed run that starts again; Prefect's own names are for retries."""
MOST_RESTARTS = 10
"""More than ``tasks.restarts`` allows, which is exact: that this many events are counted may take
fewer, since Prefect 3.8.8 counts an event twice if its database was busy."""
RESTARTS_WITHIN = timedelta(days=2)

SILENCE_SECONDS = 180.0
"""Six of the heartbeats that ``PREFECT_FLOWS_HEARTBEAT_FREQUENCY`` (30 s) makes runs send.

Clients bear a server that is away for up to 126 s (``deployments.tuning``), and the last heartbeat
before that may be 30 s old: less would crash runs that are well.
"""

_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "Cancelling", "Paused", "Suspended")
_TAKEN = ("Pending", "Submitting")
_MOVED_ON = (
    "Running",
    "Scheduled",
    RESTARTING,
    "AwaitingRetry",
    "AwaitingConcurrencySlot",
    "Late",
    *_ENDS,
)
_STARTED_AGAIN = ("release-model", "release-catalog", "nightly")
"""Flows that may be started again at any point of theirs."""


async def create_automations(
    client: PrefectClient,
    silence_seconds: float = SILENCE_SECONDS,
    start_seconds: float = START_SECONDS["process"],
    most_restarts: int = MOST_RESTARTS,
) -> None:
    """Create the automations, or bring them up to date.

    One that is as it should be is left alone: an update lets the server forget what it has seen,
    and a run that died just now would be Running for ever.

    A run whose process is killed together with its worker says nothing of its end; without
    these it would be Running or Pending for ever, and hold its place in every limit.

    Args:
        client: Of the server that gets them.
        silence_seconds: After how long without a heartbeat a run counts as crashed; at least 10.
        start_seconds: After how long in a worker's hands a run that has not started does.
        most_restarts: After how many restarts a run that never gets to its first line is ended.
    """
    for wanted in (
        _crash_silent_runs(silence_seconds),
        _crash_runs_that_do_not_start(start_seconds),
        _start_crashed_runs_again(),
        _give_up_runs_that_keep_crashing(most_restarts),
    ):
        found = await client.read_automations_by_name(wanted.name)
        if not found:
            await client.create_automation(wanted)
        elif found[0].model_dump(include=set(AutomationCore.model_fields)) != wanted.model_dump():
            await client.update_automation(found[0].id, wanted)


def _crash_silent_runs(silence_seconds: float) -> AutomationCore:
    return AutomationCore(
        name=CRASH_SILENT_RUNS,
        description="A run that has sent no heartbeat for a while has lost its process.",
        enabled=True,
        trigger=_of_each_run(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *_events(_ENDS)},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence_seconds),
        ),
        actions=[
            _crash(
                f"No heartbeat for {silence_seconds:.0f} s: its process, or its machine, is "
                "gone. Nothing half done is visible."
            )
        ],
    )


def _crash_runs_that_do_not_start(start_seconds: float) -> AutomationCore:
    return AutomationCore(
        name=CRASH_RUNS_THAT_DO_NOT_START,
        description="A run that a worker took and did not start has lost its worker.",
        enabled=True,
        trigger=_of_each_run(
            after=_events(_TAKEN),
            expect=_events(_MOVED_ON),
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=start_seconds),
        ),
        actions=[_crash(f"A worker took it and had not started it {start_seconds:.0f} s later.")],
    )


def _start_crashed_runs_again() -> AutomationCore:
    names = list(_STARTED_AGAIN)
    return AutomationCore(
        name=START_CRASHED_RUNS_AGAIN,
        description="A run whose process died is started again.",
        enabled=True,
        trigger=_of_each_run(
            match_related=ResourceSpecification.model_validate(
                {"prefect.resource.role": "flow", "prefect.resource.name": names}
            ),
            expect=_events(["Crashed"]),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED,
                name=RESTARTING,
                message="Its process died; it starts again.",
            )
        ],
    )


def _give_up_runs_that_keep_crashing(most_restarts: int) -> AutomationCore:
    """End what would start again for ever.

    What gets as far as its first line ends by itself (``tasks.restarts``); this is for the flow
    that cannot be imported and the image that cannot be pulled. By the event of the restart, so
    that it never comes before it.
    """
    return AutomationCore(
        name=GIVE_UP_RUNS_THAT_KEEP_CRASHING,
        description="A run that crashes before its first line, again and again, is ended.",
        enabled=True,
        trigger=_of_each_run(
            expect=_events([RESTARTING]),
            posture=Posture.Reactive,
            threshold=most_restarts,
            within=RESTARTS_WITHIN,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.FAILED,
                name="Failed",
                message=(
                    "It crashed again and again. Its earlier states say how; look at the worker's "
                    "log, at its image and its code, then run it anew."
                ),
            )
        ],
    )


def _of_each_run(**when: Any) -> EventTrigger:  # noqa: ANN401 - Prefect's own fields
    """Return a trigger that looks at each flow run by itself."""
    runs = ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"})
    return EventTrigger(match=runs, for_each={"prefect.resource.id"}, **when)


def _events(states: Iterable[str]) -> set[str]:
    return {f"prefect.flow-run.{state}" for state in states}


def _crash(message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message)
