"""A worker is ended, with its runs, while each of them is in another stage."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from deployments.automations import RESTARTING
from tasks.storage.places import WORK
from tests.support.bench import RELEASE
from tests.support.outage_bench import SILENCE

if TYPE_CHECKING:
    from tests.support.outage_bench import OutageBench

STAGES = ("acquire", "reference", "export", "verify", "parity", "publish")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_worker_that_ends_in_each_stage_leaves_runs_that_another_one_completes(
    how: signal.Signals, bench: OutageBench
) -> None:
    marks = bench.folder / how.name
    marks.mkdir()
    models = {stage: bench.new_model(f"held-{stage}") for stage in STAGES}
    options = ("--limit", str(len(STAGES)))
    kept = {"CONVEYOR_KEEP_AFTER_SECONDS": "0"}
    with bench.bounds(silence=SILENCE):
        with bench.worker(how.name, 0.5, *options, TEST_HOLD=str(marks), **kept) as worker:
            runs = {
                stage: bench.start(RELEASE, queue=how.name, model=model)
                for stage, model in models.items()
            }
            for stage, run in runs.items():
                bench.wait((marks / models[stage]).exists, 180, partial(bench.names, run))
                bench.until_in_stage(run, stage)

            if how is signal.SIGTERM:
                worker.send_signal(how)
                worker.wait(60)
            else:
                bench.take_down(worker)

        for run in runs.values():
            bench.until(run, RESTARTING, seconds=SILENCE + 20)
    assert [bench.latest(model) for model in models.values()] == [None] * len(STAGES)
    with bench.worker(how.name, 60, "--limit", "2", **kept):
        ends = {stage: bench.end_of(run, 240) for stage, run in runs.items()}

    assert {stage: end["type"] for stage, end in ends.items()} == dict.fromkeys(STAGES, "COMPLETED")
    said = {
        each["message"]
        for run in runs.values()
        for each in bench.history(run)
        if each["name"] == "Crashed"
    }
    assert {each[:20] for each in said} == {REASONS[how][:20]}, said
    for stage, model in models.items():
        assert bench.released_whole(model).flow_run == runs[stage]
        assert not list(bench.store.keys(f"{WORK}/{runs[stage]}/"))
    assert not list((bench.folder / "scratch").iterdir())


REASONS = {
    signal.SIGKILL: f"No heartbeat for {SILENCE} s: its process, or its machine, is gone.",
    signal.SIGTERM: "Execution was aborted by a termination signal.",
}
