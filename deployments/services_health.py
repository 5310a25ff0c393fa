"""Do the Prefect server's background services work? ``python -m deployments.services_health``.

They serve nothing that could be asked. Their worker leaves a sign of life in Redis each 2 s, from
the loop in which all of them run, and the tasks that come again and again (schedules, late runs,
automations) have their next time there. A worker that says nothing, or tasks that wait for long
after their time, mean that nothing is started, noticed or cured.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import redis
from docket import Docket

DOCKET = "prefect"
"""The queue of ``prefect server services start``; the API's own, ``prefect-server``, is another."""

_LATE_SECONDS = 120.0
"""They are due each few seconds; while the database starts again they may well be late."""


async def fault(url: str) -> str:
    """Say what is wrong with the services whose tasks are at ``url``; empty if nothing is."""
    async with Docket(name=DOCKET, url=url) as docket:
        if not await docket.workers():
            seconds = docket.heartbeat_interval.total_seconds() * docket.missed_heartbeats
            return f"the background services have given no sign of life for {seconds:.0f} s"
        async with docket.redis() as client:
            waiting = await client.zrange(docket.queue_key, 0, -1, withscores=True)
    late = sum(when < time.time() - _LATE_SECONDS for _, when in waiting)
    return f"{late} tasks of the background services are {_LATE_SECONDS:.0f} s late" if late else ""


def main() -> int:
    """Return 0 if all is well; else 1, with words."""
    try:
        words = asyncio.run(fault(os.environ["PREFECT_SERVER_DOCKET_URL"]))
    except redis.RedisError as error:
        words = f"Redis does not answer ({error})"
    if words:
        sys.stderr.write(f"prefect-services: {words}\n")
    return 1 if words else 0


if __name__ == "__main__":
    sys.exit(main())
