"""Something of the running stack is killed while a model is on its way."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from prefect.client.orchestration import PrefectClient

from deployments.automations import (
    CRASH_RUNS_THAT_DO_NOT_START,
    CRASH_SILENT_RUNS,
    GIVE_UP_RUNS_THAT_KEEP_CRASHING,
    RESTARTING,
    SILENCE_SECONDS,
    START_CRASHED_RUNS_AGAIN,
    create_automations,
)
from deployments.local import LocalStack
from deployments.tuning import START_SECONDS
from tests.support.outage_bench import (
    CHILD,
    FLOW_RUN,
    POSTGRES,
    REDIS,
    S3,
    SERVER,
    WORKER,
    Bench,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("outages")
    (folder / "models").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        packages = ["tasks.converters", "tests.support.faulty_converters"]
        patch.setenv("CONVEYOR_CONVERTER_PACKAGES", json.dumps(packages))
        patch.setenv("CONVEYOR_CATALOGUE", str(folder / "models"))
        patch.setenv("TEST_GATE", str(folder / "gate"))
        # on PostgreSQL and Redis, where this machine has them
        with LocalStack(folder / "stack", whole=True) as stack:
            yield Bench(stack, folder / "models", folder / "gate")


def test_a_prefect_server_that_is_killed_and_comes_back_finds_the_run_finished(
    bench: Bench,
) -> None:
    model, run = bench.begin()

    with bench.without(SERVER, lambda: bench.replace("prefect-server")):
        bench.let_go()

    end = bench.end_of(run)
    assert end["type"] == "COMPLETED", end
    assert bench.released_whole(model).flow_run == run


def test_a_postgresql_that_is_killed_and_comes_back_has_lost_nothing(bench: Bench) -> None:
    postgres = bench.stack.backing.postgres
    if postgres is None:
        pytest.skip(f"the stack is on {bench.stack.backing.words}")
    model, run = bench.begin()

    with bench.without(POSTGRES, postgres.start):
        bench.let_go()

    end = bench.end_of(run)
    assert end["type"] == "COMPLETED", end
    assert bench.released_whole(model).flow_run == run


def test_an_s3_server_that_is_killed_and_comes_back_gets_the_whole_release(bench: Bench) -> None:
    model, run = bench.begin()

    with bench.without(S3, bench.restart_s3):
        bench.let_go()

    end = bench.end_of(run)
    assert end["type"] == "COMPLETED", end
    assert bench.released_whole(model).flow_run == run


def test_a_run_whose_frameworks_process_is_killed_ends_with_the_reason(bench: Bench) -> None:
    model, run = bench.begin()

    bench.kill(CHILD)

    end = bench.end_of(run)
    assert end["type"] == "FAILED"
    assert "ended by signal SIGKILL without an answer" in end["message"]
    assert bench.latest(model) is None


@contextmanager
def bounds_of(
    bench: Bench, silence: float = SILENCE_SECONDS, start: float = START_SECONDS["process"]
) -> Iterator[None]:
    """Let the server notice in seconds what else takes it minutes."""

    async def declare(silent: float, starting: float) -> None:
        name, password = bench.stack.credentials or ("", "")
        auth = f"{name}:{password}" if name else None
        async with PrefectClient(f"{bench.stack.ui_url}/api", auth_string=auth) as client:
            await create_automations(client, silent, starting)

    asyncio.run(declare(silence, start))
    try:
        yield
    finally:
        asyncio.run(declare(SILENCE_SECONDS, START_SECONDS["process"]))


def test_a_killed_run_is_crashed_at_once_and_started_again(bench: Bench) -> None:
    model, run = bench.begin()

    bench.kill(FLOW_RUN)

    bench.until(run, RESTARTING)
    assert bench.latest(model) is None
    bench.let_go()
    assert bench.end_of(run)["type"] == "COMPLETED"
    assert "Crashed" in bench.names(run)
    manifest = bench.latest(model)
    assert manifest is not None
    assert manifest.version == 1


def test_the_stack_declares_its_automations(bench: Bench) -> None:
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


def test_a_run_that_is_killed_with_its_worker_is_crashed_after_some_silence(bench: Bench) -> None:
    """The bound is 150 s; here it is 10 s, so that nobody waits so long for the test."""
    with bounds_of(bench, silence=10):
        model, run = bench.begin()

        bench.kill(WORKER)

        bench.until(run, RESTARTING)
    crashed = next(each for each in bench.history(run) if each["name"] == "Crashed")
    assert crashed["message"].startswith("No heartbeat for 10 s")
    assert bench.latest(model) is None
    bench.replace("worker")
    bench.let_go()
    assert bench.end_of(run)["type"] == "COMPLETED"


def test_a_run_that_a_worker_took_and_never_started_is_started_by_another(bench: Bench) -> None:
    with bounds_of(bench, start=10):
        _, run = bench.ask(state="PENDING")
        bench.until(run, RESTARTING)
    bench.let_go()
    assert bench.end_of(run)["type"] == "COMPLETED"
    (crashed,) = [each for each in bench.history(run) if each["name"] == "Crashed"]
    assert "had not started it 10 s later" in crashed["message"]


def test_a_worker_that_is_told_to_stop_ends_its_run_first_and_takes_no_other(bench: Bench) -> None:
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
    bench: Bench,
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


def test_the_run_of_a_worker_that_dies_suddenly_is_done_by_another(bench: Bench) -> None:
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


def test_a_redis_that_is_killed_and_comes_back_holds_nothing_up(bench: Bench) -> None:
    """The last test: what Redis' clients held at that moment comes again up to 5 minutes later."""
    redis = bench.stack.backing.redis
    if redis is None:
        pytest.skip(f"the stack is on {bench.stack.backing.words}")
    model, run = bench.begin()

    with bench.without(REDIS, redis.start):
        bench.let_go()

    end = bench.end_of(run)
    assert end["type"] == "COMPLETED", end
    assert bench.released_whole(model).flow_run == run
    # what goes by messages goes again: automations, which start a killed run anew
    model, run = bench.begin()
    bench.kill(FLOW_RUN)
    bench.until(run, RESTARTING)
    bench.let_go()
    assert bench.end_of(run)["type"] == "COMPLETED"
