"""What the benchmarks of many machines share: stacks, small models, runs through the API.

How they measure and print is in ``benchmarks.measuring``.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from deployments import tuning
from deployments.local import LocalStack
from deployments.processes import Leashed, StackError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

_DONE = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_LOOK_SECONDS = 0.2
SELDOM = 2.0
"""Seconds between two looks of ``release-catalog`` at a run."""
_START_SECONDS = 120.0
_LONGEST_SECONDS = 3_600.0

_RECIPE = """\
name: {name}
description: A small model of a benchmark.
licence: CC0-1.0
source:
  kind: train-sklearn
  dataset: wine
  seed: {seed}
  steps: [{{estimator: {estimator}}}]
signature:
  inputs:
    - name: x
      dtype: float32
      shape: [batch, 13]
      domain: {{kind: range, low: 0, high: 30}}
  outputs: [{{name: label, dtype: int64, shape: [batch], role: labels}}]
targets: [onnx]
parity: {{profile: trees, random_rows: 64}}
limits: {{memory_mb: 4000, timeout_seconds: {timeout}}}
"""
_ESTIMATORS = (
    "sklearn.linear_model.RidgeClassifier",
    "sklearn.tree.DecisionTreeClassifier",
)


def write_catalogue(folder: Path, models: int, *, timeout: int = 600) -> list[str]:
    """Write so many small recipes, linear models and trees in turn; return their names.

    Args:
        folder: Of the recipes.
        models: How many.
        timeout: The seconds that each stage of a model may take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"small-{number:02}" for number in range(models)]
    for seed, name in enumerate(names):
        kind = _ESTIMATORS[seed % len(_ESTIMATORS)]
        text = _RECIPE.format(name=name, seed=seed, estimator=kind, timeout=timeout)
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    return names


@contextmanager
def worker(
    stack: LocalStack, name: str, *options: str, variables: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Inside the ``with``, a worker runs beside those of the stack; it takes runs from the start.

    Raises:
        StackError: It ended by itself, or does not take runs within two minutes.
    """
    command = [sys.executable, "-m", "deployments.worker", "--name", name, "--grace", "0"]
    with Leashed(
        name,
        [*command, *options],
        log=stack.folder / "logs" / f"{name}.log",
        environment={**stack.full_environment(), **(variables or {})},
    ) as started:
        deadline = time.monotonic() + _START_SECONDS
        while "started!" not in started.log.read_text("utf-8"):
            started.raise_if_ended()
            if time.monotonic() > deadline:
                message = f"{name}: takes no runs after {_START_SECONDS:.0f} s."
                raise StackError(f"{message} Its last lines:\n{started.last_lines()}")
            time.sleep(_LOOK_SECONDS)
        yield


class DefaultStack(LocalStack):
    """A local stack with Prefect's own settings in place of ours."""

    def full_environment(self) -> dict[str, str]:
        """Return the environment, less what ``deployments.tuning`` has."""
        ours = tuning.SERVER | tuning.CLIENT
        return {name: v for name, v in super().full_environment().items() if name not in ours}


class Api:
    """The API of a stack's Prefect server, as far as the benchmarks use it."""

    def __init__(self, stack: LocalStack) -> None:
        """Open a connection."""
        self._client = httpx.Client(
            base_url=f"{stack.ui_url}/api", auth=stack.credentials, trust_env=False, timeout=60
        )

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._client.close()

    def ask(self, path: str, **query: Any) -> Any:  # noqa: ANN401 - JSON
        """Post a query, and return the answer."""
        return self._client.post(path, json=query).raise_for_status().json()

    def look_at(self, run: str) -> None:
        """Read a run, as whoever waits for it does."""
        self._read(f"/flow_runs/{run}")

    def _read(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self._client.get(path).raise_for_status().json()
        return found

    def start(
        self,
        deployment: str,
        parameters: Mapping[str, object],
        queue: str | None = None,
        due: datetime | None = None,
    ) -> str:
        """Start a run as ``prefect deployment run`` does, now or then; return its id."""
        found = self._read(f"/deployments/name/{deployment}")
        body: dict[str, Any] = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        if due:
            body["state"]["state_details"] = {"scheduled_time": due.isoformat()}
        if queue:
            body["work_queue_name"] = queue
        return str(self.ask(f"/deployments/{found['id']}/create_flow_run", **body)["id"])

    def end_of(self, run: str, every: float = _LOOK_SECONDS) -> dict[str, Any]:
        """Wait until a run has ended, and return it.

        Args:
            run: Which.
            every: Seconds between two looks. Each costs the server CPU, so whoever measures that
                looks as seldom as a catalogue run does.
        """
        deadline = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < deadline:
            found = self._read(f"/flow_runs/{run}")
            if found["state"] and found["state"]["type"] in _DONE:
                return found
            time.sleep(every)
        message = f"run {run}: not done within {_LONGEST_SECONDS:.0f} s"
        raise TimeoutError(message)

    def first_stage(self, run: str) -> datetime:
        """Return when the first task of an ended run began; its record may come a little later."""
        query = {"flow_runs": {"id": {"any_": [run]}}}
        for _ in range(600):
            begun = [each["start_time"] for each in self.ask("/task_runs/filter", **query)]
            if begun and all(begun):
                return min(datetime.fromisoformat(each) for each in begun)
            time.sleep(_LOOK_SECONDS)
        message = f"run {run}: the server has no task run of it"
        raise TimeoutError(message)


def seconds_between(begun: str, end: datetime) -> float:
    """Return the seconds from a moment of the API to another."""
    return (end - datetime.fromisoformat(begun)).total_seconds()
