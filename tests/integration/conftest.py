"""A small network, some rows, and its answers to them; and a stack in which things are killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from tasks.arrays import save_arrays
from tasks.bisecting import Asked
from tasks.domain.release import ProbeInfo
from tasks.runners.onnxruntime_runner import open_session, run_session
from tests.support.outage_bench import OutageBench
from tests.support.small_net import RECIPE, network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROBE = ProbeInfo(name="random", rows=6, about="drawn")


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """Six rows, and the good network's answers; row 4 alone is bright, and tells most."""
    save(network(), tmp_path / "good")
    image = np.random.default_rng(3).uniform(-1, 1, (6, 3, 12, 12)).astype(np.float32)
    image[4] *= 2
    for name in ("inputs", "answers"):
        (tmp_path / name).mkdir()
    save_arrays(tmp_path / "inputs" / "random.npz", {"image": image})
    session = open_session("good", tmp_path / "good" / "model.onnx", optimisation="off")
    save_arrays(tmp_path / "answers" / "random.npz", run_session(session, {"image": image}))
    return Asked(
        recipe=RECIPE,
        probes=(PROBE,),
        inputs=tmp_path / "inputs",
        answers=tmp_path / "answers",
    )


def save(net: onnx.ModelProto, folder: Path) -> Path:
    folder.mkdir()
    onnx.save(net, folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutageBench]:
    """Start a stack of the module's own, on PostgreSQL and Redis where this machine has them."""
    with OutageBench.running(tmp_path_factory.mktemp("outages")) as bench:
        yield bench
