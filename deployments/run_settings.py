"""What the runs of every pool have in common; without Prefect, whose import takes a second."""

from __future__ import annotations

from typing import Literal

PoolKind = Literal["process", "docker", "kubernetes"]

RUN_VARIABLES = {
    # `deployments.automations` notices a dead run by its silence; Prefect's default is 180 s
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # while its database is away, the server answers 500, at which a client gives up by default
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
}
"""What every run must have, wherever it runs."""

START_SECONDS: dict[PoolKind, float] = {"process": 300.0, "docker": 1_200.0, "kubernetes": 1_200.0}
"""How long a run may take from a worker's hands to its first line.

A process takes 3 to 6 s here. An image of several GB may have to be pulled first, onto a node that
is not there yet: the template for Kubernetes waits 900 s for a pod.
"""
