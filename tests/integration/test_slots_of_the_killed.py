"""What a killed run held is free again: places under limits, and a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from deployments.bootstrap import SWITCH
from tests.support.bench import WAITS
from tests.support.gpu_functions import Stayed
from tests.support.outage_bench import SILENCE

if TYPE_CHECKING:
    from tests.support.outage_bench import OutageBench

NIGHTLY = "nightly/default"


def places_taken(bench: OutageBench, deployment: str) -> int:
    """Return how many runs hold a place under the deployment's own limit."""
    found = bench.api.get(f"/deployments/name/{deployment}").json()["id"]
    limit = bench.api.get(f"/v2/concurrency_limits/deployment:{found}").raise_for_status()
    return int(limit.json()["active_slots"])


@pytest.mark.slow
def test_a_run_that_is_killed_with_its_worker_frees_its_places_under_both_limits(
    bench: OutageBench,
) -> None:
    bench.set_variable(SWITCH, "on")
    bench.api.post("/work_pools/cpu/queues", json={"name": "night", "concurrency_limit": 1})
    with bench.bounds(silence=SILENCE):
        with bench.worker("night", 0) as worker:
            bench.hold_back()
            model = bench.new_model("slots", converters=WAITS)
            choice: dict[str, Any] = {"select": f"name:{model}", "force": True}
            held = bench.start(NIGHTLY, queue="night", **choice)
            bench.wait(lambda: bench.runs_called(f"release {model}") != [])
            # of the deployment's only place, and of the queue's
            refused = bench.start(NIGHTLY, queue="catalogue", **choice)
            other, waiting = bench.ask("night")
            bench.until(refused, "Cancelled")
            assert places_taken(bench, NIGHTLY) == 1

            bench.take_down(worker)

        bench.until(held, "Crashed", seconds=SILENCE + 20)
    bench.wait(lambda: places_taken(bench, NIGHTLY) == 0, 5)
    assert set(bench.names(waiting)) <= {"Scheduled", "Late"}
    bench.let_go()
    with bench.worker("night", 60):
        assert bench.end_of(waiting)["type"] == "COMPLETED"
        # the killed night too, which has found its place free
        assert bench.end_of(held)["type"] == "COMPLETED"
    assert bench.released_whole(other).flow_run == waiting
    assert bench.latest(model) is not None
    assert places_taken(bench, NIGHTLY) == 0


@pytest.mark.slow
def test_a_stage_whose_gpu_worker_is_killed_with_it_is_done_by_another_on_the_same_gpu(
    bench: OutageBench,
) -> None:
    own = {
        "CONVEYOR_GPU_DEVICES": json.dumps(["fake-0"]),
        "CONVEYOR_GPU_LOCKS": str(bench.folder / "locks"),
        "CONVEYOR_GPU_REQUIRE_RUNTIME": "false",
    }
    marker = bench.folder / "marker"
    with (
        bench.bounds(silence=SILENCE),
        bench.worker("default", 0, pool="gpu", name="first", **own) as first,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.gpu_caller", str(marker)],
            env=bench.stack.full_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as caller,
    ):
        bench.wait(marker.exists)

        bench.take_down(first)

        with bench.worker("default", 0, pool="gpu", name="second", **own):
            out, log = caller.communicate(timeout=SILENCE + 120)

    assert "its run crashed: No heartbeat for" in log
    answer = Stayed.model_validate_json(out.splitlines()[-1])
    assert (answer.gpu, answer.worker) == ("fake-0", "second")
