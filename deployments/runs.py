"""Runs of ``release-model``, started and watched as anybody would from another shell."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.local import LocalStack
    from deployments.processes import Leashed

DEPLOYMENT = "release-model/default"

UP_TO_DATE = "Up to date"
"""As ``tasks.standing`` names the state; its import of Prefect would delay the first screen."""

_POLL_SECONDS = 0.5
_RUN_ID = re.compile(r"UUID: ([0-9a-f-]{36})")
_DONE = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class ModelRun:
    """One model on its way through the conveyor, as far as it is known from outside."""

    model: str
    stage: str = "waits"
    """What it is doing now, in Prefect's words: the name of its youngest running task."""
    stages: int = 0
    """How many stages it has done."""
    run_id: str | None = None
    state: str = ""
    message: str = ""
    seconds: float = 0.0
    command: Leashed | None = None
    started: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether ``prefect deployment run --watch`` has come back."""
        return self.command is not None and self.command.returncode is not None

    @property
    def up_to_date(self) -> bool:
        """Whether there was nothing to do: what is released is what would be released."""
        return self.state == UP_TO_DATE

    @property
    def released(self) -> bool:
        """Whether it came back well, from doing something or from finding nothing to do."""
        return self.command is not None and self.command.returncode == 0


def run_all(
    stack: LocalStack, models: list[str], at_once: int, *, force: bool = False
) -> Iterator[list[ModelRun]]:
    """Run every model, ``at_once`` at a time; yield where they are, twice a second, to the end.

    Raises:
        StackError: A part of the stack has ended.
    """
    runs = [ModelRun(model) for model in models]
    url, auth = f"{stack.ui_url}/api", stack.credentials
    with httpx.Client(base_url=url, auth=auth, trust_env=False, timeout=10) as api:
        while True:
            stack.raise_if_broken()
            under_way = [run for run in runs if run.command and not run.ended]
            waiting = [run for run in runs if not run.command]
            for run in waiting[: at_once - len(under_way)]:
                _start(stack, run, force=force)
            for run in runs:
                if run.command and not run.message:
                    _look(api, run)
            yield runs
            if all(run.ended for run in runs):
                return
            time.sleep(_POLL_SECONDS)


def _start(stack: LocalStack, run: ModelRun, *, force: bool) -> None:
    run.started = time.monotonic()
    run.stage = "is handed to the worker"
    run.command = stack.run(
        f"release-{run.model}",
        *("prefect", "deployment", "run", DEPLOYMENT, "-p", f"model={run.model}", "--watch"),
        *("-p", f"force={str(force).lower()}"),
        *("--flow-run-name", f"release {run.model}"),
    )


def _look(api: httpx.Client, run: ModelRun) -> None:
    """Bring ``run`` up to date with the server, and with the command that watches it."""
    assert run.command is not None  # noqa: S101 - the caller asks for started runs only
    ended = run.ended
    if not run.ended:
        run.seconds = time.monotonic() - run.started
    if run.run_id is None:
        found = _RUN_ID.search(run.command.log.read_text(errors="replace"))
        run.run_id = found.group(1) if found else None
    if run.run_id is not None:
        try:
            _ask(api, run)
        except httpx.TransportError:
            return  # the server is busy; the next look is soon
    if ended and not run.message:
        lines = run.command.log.read_text(errors="replace").split("\n")
        run.message = next((line for line in reversed(lines) if line.strip()), "no output")


def _ask(api: httpx.Client, run: ModelRun) -> None:
    found = api.get(f"/flow_runs/{run.run_id}").raise_for_status().json()
    state = found["state"] or {}
    run.state = state.get("name", "")
    query = {"flow_runs": {"id": {"any_": [run.run_id]}}, "sort": "EXPECTED_START_TIME_DESC"}
    tasks: list[dict[str, Any]] = api.post("/task_runs/filter", json=query).json()
    run.stages = sum(each["state_type"] == "COMPLETED" for each in tasks)
    busy = [each["name"] for each in tasks if each["state_type"] == "RUNNING"]
    if state.get("type") in _DONE:
        done = "up to date" if run.up_to_date else "released"
        run.stage = done if state["type"] == "COMPLETED" else "failed"
        run.message = state.get("message") or run.state
        run.seconds = found["total_run_time"]
    elif busy:
        run.stage = busy[0]
    elif state.get("type") == "RUNNING":
        run.stage = "starts" if not tasks else run.stage
