"""Something of the running stack is killed while a model is on its way."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from deployments.automations import (
    CRASH_RUNS_THAT_DO_NOT_START,
    CRASH_SILENT_RUNS,
    GIVE_UP_RUNS_THAT_KEEP_CRASHING,
    RESTARTING,
    SILENCE_SECONDS,
    START_CRASHED_RUNS_AGAIN,
)
from deployments.tuning import START_SECONDS
from tests.support.bench import process_of
from tests.support.outage_bench import (
    AWAY_SECONDS,
    CHILD,
    FLOW_RUN,
    POSTGRES,
    REDIS,
    S3,
    SERVER,
    SILENCE,
    WORKER,
    OutageBench,
)

A_MINUTE = 60.0

both_signals = pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"]
)


@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        pytest.param(signal.SIGKILL, AWAY_SECONDS, id="SIGKILL"),
        pytest.param(signal.SIGTERM, A_MINUTE, id="SIGTERM-a-minute", marks=pytest.mark.slow),
    ],
)
def test_a_prefect_server_that_ends_and_comes_back_finds_the_run_finished(
    how: signal.Signals, seconds: float, bench: OutageBench
) -> None:
    model, run = bench.begin()

    with bench.without(SERVER, lambda: bench.replace("prefect-server"), how, seconds):
        bench.let_go()

    end = bench.end_of(run)
    assert end["type"] == "COMPLETED", end["message"]
    assert bench.released_whole(model).flow_run == run


@both_signals
def test_a_postgresql_that_ends_and_comes_back_has_lost_nothing(
    how: signal.Signals, bench: OutageBench
) -> None:
    postgres = bench.stack.backing.postgres
    assert postgres
    model, run = bench.begin()

    with bench.without(POSTGRES, postgres.start, how):
        bench.let_go()

    end = bench.end_of(run)
    assert end["type"] == "COMPLETED", end["message"]
    assert bench.released_whole(model).flow_run == run


@both_signals
def test_an_s3_server_that_ends_and_comes_back_gets_the_whole_release(
    how: signal.Signals, bench: OutageBench
) -> None:
    model, run = bench.begin()

    with bench.without(S3, bench.restart_s3, how):
        bench.let_go()

    end = bench.end_of(run)
    assert end["type"] == "COMPLETED", end["message"]
    assert bench.released_whole(model).flow_run == run


@both_signals
def test_a_run_whose_frameworks_process_is_ended_ends_with_the_reason(
    how: signal.Signals, bench: OutageBench
) -> None:
    model, run = bench.begin()

    bench.kill(CHILD, how)

    end = bench.end_of(run)
    assert end["type"] == "FAILED"
    assert f"ended by signal {how.name} without an answer" in end["message"]
    assert bench.latest(model) is None


@both_signals
def test_a_run_that_is_ended_is_crashed_at_once_and_started_again(
    how: signal.Signals, bench: OutageBench
) -> None:
    model, run = bench.begin()

    bench.kill(FLOW_RUN, how)

    bench.until(run, RESTARTING)
    assert bench.latest(model) is None
    bench.let_go()
    assert bench.end_of(run)["type"] == "COMPLETED"
    (crashed,) = [each for each in bench.history(run) if each["name"] == "Crashed"]
    assert END_OF_A_RUN[how] in crashed["message"]
    assert bench.released_whole(model).flow_run == run


END_OF_A_RUN = {
    signal.SIGKILL: "-9",
    signal.SIGTERM: "Execution was aborted by a termination signal.",
}


def test_the_stack_declares_its_automations(bench: OutageBench) -> None:
    found = {each["name"]: each for each in bench.api.post("/automations/filter", json={}).json()}

    assert found.keys() == {
        CRASH_SILENT_RUNS,
        CRASH_RUNS_THAT_DO_NOT_START,
        START_CRASHED_RUNS_AGAIN,
        GIVE_UP_RUNS_THAT_KEEP_CRASHING,
    }
    assert all(each["enabled"] for each in found.values())
    assert found[CRASH_SILENT_RUNS]["trigger"]["within"] == SILENCE_SECONDS
    assert found[CRASH_RUNS_THAT_DO_NOT_START]["trigger"]["within"] == START_SECONDS["process"]


def test_a_run_that_is_killed_with_its_worker_is_crashed_after_some_silence(
    bench: OutageBench,
) -> None:
    """The bound is 180 s; here it is 10 s, so that nobody waits so long for the test."""
    with bench.bounds(silence=10):
        model, run = bench.begin()

        bench.kill(WORKER)

        bench.until(run, RESTARTING)
    crashed = next(each for each in bench.history(run) if each["name"] == "Crashed")
    assert crashed["message"].startswith("No heartbeat for 10 s")
    assert bench.latest(model) is None
    bench.replace("worker")
    bench.let_go()
    assert bench.end_of(run)["type"] == "COMPLETED"


def test_a_run_that_a_worker_took_and_never_started_is_started_by_another(
    bench: OutageBench,
) -> None:
    with bench.bounds(start=10):
        _, run = bench.ask(state="PENDING")
        bench.until(run, RESTARTING)
    bench.let_go()
    assert bench.end_of(run)["type"] == "COMPLETED"
    (crashed,) = [each for each in bench.history(run) if each["name"] == "Crashed"]
    assert "had not started it 10 s later" in crashed["message"]


def test_a_run_that_never_gets_to_its_first_line_is_not_started_for_ever(
    bench: OutageBench,
) -> None:
    with bench.bounds(restarts=2):
        run = bench.ask_for_what_cannot_be_loaded()
        end = bench.end_of(run)

    assert end["type"] == "FAILED"
    assert end["message"].startswith("It crashed again and again.")
    assert 1 <= bench.names(run).count(RESTARTING) <= 2  # an event may be counted twice


def test_a_worker_that_is_told_to_stop_ends_its_run_first_and_takes_no_other(
    bench: OutageBench,
) -> None:
    with bench.worker("drained", grace=120) as worker:
        model, run = bench.begin("drained")

        worker.send_signal(signal.SIGTERM)
        time.sleep(2)  # two of its polls
        _, other = bench.ask("drained")
        bench.let_go()
        worker.wait(60)

    assert bench.end_of(run)["type"] == "COMPLETED"
    assert bench.latest(model) is not None
    assert "Running" not in bench.names(other)


def test_a_worker_whose_grace_is_over_ends_its_run_which_starts_again_elsewhere(
    bench: OutageBench,
) -> None:
    with bench.worker("impatient", grace=0.5) as worker:
        _, run = bench.begin("impatient")

        worker.send_signal(signal.SIGTERM)
        worker.wait(60)

    bench.until(run, RESTARTING)
    assert "Crashed" in bench.names(run)
    with bench.worker("impatient", grace=60):
        bench.let_go()
        assert bench.end_of(run)["type"] == "COMPLETED"


@pytest.mark.slow
def test_a_run_that_does_not_end_when_its_worker_tells_it_is_killed_and_starts_again_elsewhere(
    bench: OutageBench,
) -> None:
    with bench.bounds(silence=SILENCE), bench.worker("stubborn", grace=0.5) as worker:
        _, run = bench.begin("stubborn")
        process = process_of(run)
        family = [process, *process.children(recursive=True)]
        process.suspend()  # it hears of no signal but KILL

        worker.send_signal(signal.SIGTERM)
        worker.wait(60)

        assert psutil.wait_procs(family, timeout=10)[1] == []
        bench.until(run, RESTARTING)
    (crashed,) = [each for each in bench.history(run) if each["name"] == "Crashed"]
    assert crashed["message"].startswith(f"No heartbeat for {SILENCE} s")
    with bench.worker("stubborn", grace=60):
        bench.let_go()
        assert bench.end_of(run)["type"] == "COMPLETED"


def test_the_run_of_a_worker_that_dies_suddenly_is_done_by_another(bench: OutageBench) -> None:
    with bench.worker("doomed", grace=0) as worker:
        model, run = bench.begin("doomed")
        worker.kill()
        worker.wait(10)
    bench.let_go()

    with bench.worker("doomed", grace=0):
        assert bench.end_of(run)["type"] == "COMPLETED"

    manifest = bench.latest(model)
    assert manifest is not None
    assert manifest.version == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_redis_that_ends_and_comes_back_holds_nothing_up(
    how: signal.Signals, bench: OutageBench
) -> None:
    """The last test: what Redis' clients held at that moment comes again up to 5 minutes later."""
    redis = bench.stack.backing.redis
    if redis is None:
        pytest.skip(f"the stack is on {bench.stack.backing.words}")
    model, run = bench.begin()

    with bench.without(REDIS, redis.start, how):
        bench.let_go()

    end = bench.end_of(run)
    assert end["type"] == "COMPLETED", end["message"]
    assert bench.released_whole(model).flow_run == run


def test_after_redis_has_come_back_a_killed_run_is_started_again(bench: OutageBench) -> None:
    """It goes by messages, from the server by its automations to the server."""
    _, run = bench.begin()

    bench.kill(FLOW_RUN)

    bench.until(run, RESTARTING)
    bench.let_go()
    assert bench.end_of(run)["type"] == "COMPLETED"
