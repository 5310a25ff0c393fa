"""Which of two ONNX models answers faster: run in turns, pair by pair, in one process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.arrays import load_arrays
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.domain.variant_rules import race_of
from tasks.domain.variants import Race
from tasks.runners import Device
from tasks.runners.onnxruntime_runner import open_session, run_session, thread_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_FEWEST, _MOST = 9, 31
"""Pairs: as many as fit into the time, but no fewer and no more than these."""
_SECONDS = 3.0
_SAMPLE_SECONDS = 0.01
"""What answers faster is run several times for one sample: one interruption would decide else."""


class RaceRequest(Value):
    """Who runs against whom, on what."""

    recipe: Recipe
    parent: Path
    """The file."""
    variant: Path
    """Likewise."""
    probe: Path
    """``.npz``; its first row is what both answer."""
    device: Device


def race(request: RaceRequest) -> Race:
    """Let both answer one row again and again, in turns, and who goes first in turns too.

    Raises:
        VerificationError: One of them does not load.
        ConfigurationError: The device is not there.
    """
    where = f"{request.recipe.name}: timing"
    runners = [open_session(where, each, request.device) for each in
               (request.parent, request.variant)]  # fmt: skip
    row = {name: each[:1] for name, each in load_arrays(request.probe).items()}
    for runner in runners:  # memory is taken and kernels are chosen at the first run
        run_session(runner, row)
    repeats = [max(1, round(_SAMPLE_SECONDS / _sample(each, row, 2))) for each in runners]
    pairs: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(pairs) < _MOST and (len(pairs) < _FEWEST or time.perf_counter() - began < _SECONDS):
        first = len(pairs) % 2
        took = {i: 1e3 * _sample(runners[i], row, repeats[i]) for i in (first, 1 - first)}
        pairs.append((took[0], took[1]))
    provider = runners[0].get_providers()[0]
    return race_of(pairs, f"{provider}, {thread_count()} threads, one row a call")


def _sample(session: Any, row: Mapping[str, NDArray[Any]], repeats: int) -> float:  # noqa: ANN401
    began = time.perf_counter()
    for _ in range(repeats):
        run_session(session, row)
    return (time.perf_counter() - began) / repeats
