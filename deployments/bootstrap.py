"""Declare everything: bucket, work pools, automations, then the deployments of ``prefect.yaml``.

Run from the repository's root as ``python -m deployments.bootstrap``; running it again changes
nothing. The servers are those of the environment; they may still be starting.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelled

from deployments.automations import create_automations
from deployments.pools import KINDS, create_pools
from deployments.tuning import START_SECONDS, PoolKind
from tasks.settings import store_settings
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State

PREFECT_YAML = Path(__file__).with_name("prefect.yaml")
SWITCH = "conveyor_nightly"
"""As ``flows.nightly`` reads it, whose import would cost every start of a stack half a second."""

_UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_SERVER_SECONDS = 120.0
_BUCKET_IS_THERE = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
_NO_ANSWER = HTTPStatus.SERVICE_UNAVAILABLE


async def wait_for_server(client: PrefectClient) -> None:
    """Return once the server answers.

    Raises:
        SystemExit: It did not within two minutes.
    """
    deadline = time.monotonic() + _SERVER_SECONDS
    while error := await client.api_healthcheck():
        if time.monotonic() > deadline:
            sys.exit(f"{client.api_url}: no Prefect server answers ({error}). Is it up?")
        await anyio.sleep(0.1)


async def cancel_orphans(client: PrefectClient) -> None:
    """End the runs that an ended local stack left unfinished; no worker may be running.

    Cancelled, since what is Crashed would start again beside what the new stack is for. What is
    planned for a later time stays planned.
    """
    unfinished = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED)),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    while runs := await client.read_flow_runs(flow_run_filter=unfinished):
        for run in runs:
            state: State[None] = Cancelled(message="The stack that ran it was stopped.")
            await client.set_flow_run_state(run.id, state, force=True)


async def create_switch(client: PrefectClient, *, local: bool) -> None:
    """Create the variable that switches the schedules, unless somebody has set it already.

    On a local stack they are off: its owner expects no models to be made at night.
    """
    if await client.read_variable_by_name(SWITCH) is None:
        value = "off" if local else "on"
        await client.create_variable(VariableCreate(name=SWITCH, value=value))


def create_bucket() -> None:
    """Create the bucket of the settings, unless it exists; wait for its server if need be.

    A status of 500 and more is a server that starts, too: MinIO answers 503 until it knows its
    disks and users.

    Raises:
        SystemExit: The server refused, or did not answer within two minutes.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    store = open_store(store_settings())
    deadline = time.monotonic() + _SERVER_SECONDS
    while True:
        try:
            store.client.create_bucket(Bucket=store.bucket)
        except (ClientError, BotoCoreError) as error:
            answer = getattr(error, "response", {})
            if answer.get("Error", {}).get("Code") in _BUCKET_IS_THERE:
                return
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", _NO_ANSWER)
            if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                sys.exit(
                    f"{store.url('')}: cannot be created ({error}). Are the credentials right?"
                )
            if time.monotonic() > deadline:
                sys.exit(f"{store.url('')}: no S3 server answers ({error}). Is it up?")
            time.sleep(1)
        else:
            return


async def _declare(kind: PoolKind, *, local: bool) -> None:
    async with get_client() as client:
        await wait_for_server(client)
        await create_pools(client, kind)
        await create_automations(client, start_seconds=START_SECONDS[kind])
        await create_switch(client, local=local)
        if local:
            await cancel_orphans(client)


def deploy() -> None:
    """Deploy all of ``prefect.yaml``; ends the process with Prefect's own exit code.

    ``--all``, since a single ``--name`` would let a default work pool in the user's profile
    override the file's. In this process, since a second one would import Prefect again.
    """
    from prefect.cli import app

    sys.argv[1:] = ["--no-prompt", "deploy", "--prefect-file", str(PREFECT_YAML), "--all"]
    app()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="deployments.bootstrap", description=__doc__)
    parser.add_argument(
        "--local", action="store_true", help="end what an earlier stack's worker left unfinished"
    )
    parser.add_argument("--bucket", action="store_true", help="create the bucket as well")
    parser.add_argument(
        "--pools", choices=KINDS, default="process", help="what a run is: deployments/pools.py"
    )
    options = parser.parse_args()
    if options.bucket:
        create_bucket()
    anyio.run(lambda: _declare(options.pools, local=options.local))
    deploy()
