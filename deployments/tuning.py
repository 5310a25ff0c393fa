"""How Prefect is set where its defaults do not fit; ``docs/machines/measured.md`` says why.

The local stack takes these; a test holds the compose file and the manifests to them.
"""

from __future__ import annotations

from typing import Literal

PoolKind = Literal["process", "docker", "kubernetes"]

SERVER = {
    # The default, 5 s, ends connections that a client is about to use again after a stage of
    # more than 5 s; the client then waits 2 s before it tries anew.
    "PREFECT_SERVER_API_KEEPALIVE_TIMEOUT": "120",
    # Else each task's state is written by itself. On SQLite that collides with the next one's
    # question whether its tags have limits, and the client waits 2 s.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # Runs, with their tasks and logs, are kept for ever by default: here for 90 days, and
    # heartbeats, of which the last 180 s matter, for one day instead of 7.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "7776000",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": (
        '{"prefect.flow-run.heartbeat": 86400}'
    ),
}
"""Of the server, however many processes it is."""

APART = {
    # one at a time by default; then an event waits behind every other one
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "100",
}
"""Of a server whose background services read what happens from Redis."""

RUN = {
    # deployments.automations notices a killed run by its silence; the default is 180 s
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # while PostgreSQL is away, the server answers 500, at which a client gives up by default
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
    # seven tries in two minutes (0, 2, 6, 14, 30, 62, 126 s); with the default, 5, a server that
    # is back after a minute finds its runs Failed
    "PREFECT_CLIENT_MAX_RETRIES": "6",
}
"""Of every run, whoever started its worker: the work pools have it."""

CLIENT = {
    # 10 s by default, which every run waits for; each look costs the server (measured.md)
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    **RUN,
}
"""Of workers and runs."""

START_SECONDS: dict[PoolKind, float] = {"process": 300.0, "docker": 1_200.0, "kubernetes": 1_200.0}
"""How long a run may take from a worker's hands to its first line.

A process takes 3 to 6 s here. An image of several GB may have to be pulled first, onto a node that
is not there yet: the template for Kubernetes waits 900 s for a pod.
"""
