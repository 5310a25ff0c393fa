"""The other side of ``tasks.remote``: what a GPU worker does with a stage that it is sent."""

from __future__ import annotations

import importlib
import json
import os
import platform
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from pydantic import ValidationError

from tasks.domain.errors import ConfigurationError, GpuUnavailableError
from tasks.isolation import Call, Family
from tasks.remote import GpuStage, reply_key
from tasks.runtime import workshop
from tasks.trees import trees_in


def gone(owner: str) -> str:
    """Say that nobody waits for a reply any more; empty if somebody does.

    A caller that has crashed may be started again, and finds this run then.
    """
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(owner)).state
        except ObjectNotFound:
            return f"The run that asked for it, {owner}, is not there any more."
    if state and state.is_final() and not state.is_crashed():
        return f"The run that asked for it, {owner}, has ended as {state.name}."
    return ""


def perform_stage(name: str, request: dict[str, Any]) -> None:
    """Run the stage called ``name`` in the current workshop, and leave its reply there.

    Raises:
        ConfigurationError: This worker's code has no such stage, or another request for it.
        ReleaseError: As the stage raises it.
    """
    shop = workshop()
    stage = _stage(name)
    try:
        asked = stage.types[0].model_validate_json(json.dumps(request))
    except ValidationError as error:
        message = f"{name}: not its request ({error}). Bring this worker's code up to date."
        raise ConfigurationError(message) from error
    sent = {tree.root for tree in trees_in(asked)}
    shop.adopt(*trees_in(asked))
    answer = stage.function(asked)
    for tree in trees_in(answer):
        if tree.root not in sent:
            shop.share(tree)
    shop.store.create(reply_key(shop, str(flow_run.id)), answer.model_dump_json().encode())


def _stage(name: str) -> GpuStage[Any, Any]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        found = None
    if not isinstance(found, GpuStage):
        message = f"{name}: this worker's code has no such GPU stage. Bring it up to date."
        raise ConfigurationError(message)
    return found


def require_gpu(title: str, family: Family) -> None:
    """Make sure that a framework can use a GPU here, before any work is begun.

    Raises:
        GpuUnavailableError: It cannot; the message names the worker, what was found, and what
            to install.
    """
    from tasks.steps.gpu import LookRequest, look

    call = Call("look for a GPU", title, family, fails_as=GpuUnavailableError)
    seen = workshop().children.call(look, LookRequest(family=family), call).value
    if seen.usable:
        return
    worker = os.environ.get("PREFECT__WORKER_NAME", "(no worker)")
    message = (
        f"{title}: worker '{worker}' on host {platform.node()} offers no GPU for it (expected "
        f"{seen.expected}, got {seen.found}). {seen.remedy} It never runs on a CPU instead."
    )
    raise GpuUnavailableError(message)
