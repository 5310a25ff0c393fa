"""What runs by the clock: the catalogue, at night, unless it is switched off or long overdue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.variables import Variable
from pydantic import NonNegativeFloat, PositiveInt

from flows.release_catalog import Outcome, release_catalog

SWITCH = "conveyor_nightly"
"""Prefect variable; ``off`` switches the schedules off, anything else, or no variable, on."""

SKIPPED = "Skipped"


@flow(name="nightly", flow_run_name="nightly {select}")
async def nightly(
    select: str = "stale",
    at_once: PositiveInt = 2,
    catch_up_hours: NonNegativeFloat = 12,
    *,
    force: bool = False,
) -> State[tuple[Outcome, ...]]:
    """Release what is stale, as ``release-catalog`` does; or skip this night, and say why.

    Runs that nobody could start, since there was no worker, wait for one. Of those only what was
    due in the last hours is caught up with; and since a second run is refused while one is under
    way (its deployment says so), that is one run, not one for each night.

    Args:
        select: Which models; see ``release-catalog``.
        at_once: How many runs may be under way at the same time.
        catch_up_hours: How late it may begin.
        force: Release those too in which nothing has changed.
    """
    if reason := await _why_not(catch_up_hours):
        return Completed(name=SKIPPED, message=reason)
    # in this run, not in one below it, which would be another when this one is tried again
    return await release_catalog.fn(at_once=at_once, force=force, select=select)


async def _why_not(catch_up_hours: float) -> str:
    if str(await Variable.aget(SWITCH, default="on")).strip().lower() == "off":
        return f"the variable '{SWITCH}' is 'off'. Switch it on: prefect variable unset {SWITCH}"
    due = flow_run.scheduled_start_time
    late = datetime.now(UTC) - due if due else timedelta()
    if late > timedelta(hours=catch_up_hours):
        return (
            f"it was due at {due:%F %T} UTC, {late.total_seconds() / 3600:.1f} h ago; what is more "
            f"than {catch_up_hours:g} h late is not caught up with"
        )
    return ""
