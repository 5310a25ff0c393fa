"""A run whose process died is started again by the server; here it is seen to it that this ends.

``deployments.automations`` has a second end to it, for runs that never get as far as this.
"""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from tasks.domain.errors import GaveUpError

MOST_CRASHES = 3
"""A model that takes its process down three times, such as by its memory, will do so again."""


def refuse_more_starts() -> None:
    """End a run whose process has died too often.

    By its states, since starts that a person asked for count for nothing.

    Raises:
        GaveUpError: The run's process died in several of its starts before this one.
    """
    if (flow_run.run_count or 1) <= MOST_CRASHES:
        return
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(flow_run.id))
    crashes = sum(state.is_crashed() for state in states)
    if crashes >= MOST_CRASHES:
        message = (
            f"{flow_run.name}: its process died {crashes} times before the end. Its earlier states "
            "say how; look at the worker's log and at its machine's memory, then run it anew."
        )
        raise GaveUpError(message)
