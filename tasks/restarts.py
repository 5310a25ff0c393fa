"""A run whose process died is started again by the server; here it is seen to it that this ends."""

from __future__ import annotations

from prefect.runtime import flow_run

from tasks.domain.errors import GaveUpError

MOST_STARTS = 3
"""A model that takes its process down three times, such as by its memory, will do so again."""


def refuse_more_starts() -> None:
    """End a run that was started too often.

    Raises:
        GaveUpError: The run's process died in each of its starts before this one.
    """
    starts = int(flow_run.run_count or 1)
    if starts > MOST_STARTS:
        message = (
            f"{flow_run.name}: started {starts - 1} times, and each time its process died before "
            "the end. Look at the worker's log and at its machine's memory, then run it anew."
        )
        raise GaveUpError(message)
