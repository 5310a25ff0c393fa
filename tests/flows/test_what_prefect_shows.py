"""What a run leaves in Prefect: names, tags, retries, progress, a table and a link."""

from __future__ import annotations

import contextvars
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterName,
)

from flows.release_model import release_model
from tasks import acquire, export, parity, progress, publish, verify
from tasks.domain.errors import ChildCrashedError
from tasks.runtime import is_transient
from tasks.settings import store_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import Artifact, FlowRun, TaskRun
    from prefect.tasks import Task

BARS = ArtifactFilter.model_validate({"type": {"any_": ["progress"]}})
STAGES: list[Task[..., Any]] = [
    acquire.acquire,
    acquire.answer_probes,
    export.export,
    verify.verify,
    parity.check_parity,
    publish.publish,
    publish.quarantine,
    publish.show_parity,
]


def run_of(model: str) -> FlowRun:
    name = FlowRunFilter(name=FlowRunFilterName(any_=[f"release {model}"]))
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=name)
    return run


def tasks_of(run: FlowRun, count: int) -> list[TaskRun]:
    """Return the task runs, once Prefect has recorded as many; it does so a little later."""
    own = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:
            found = client.read_task_runs(flow_run_filter=own)
            ended = [each for each in found if each.state and each.state.is_final()]
            if len(ended) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


def artifacts_of(run: FlowRun) -> list[Artifact]:
    own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=own)


def test_every_task_run_says_its_model_and_has_a_tag_where_a_limit_is_of_use(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue()

    release_model(model)

    run = run_of(model)
    found = {each.name: set(each.tags) for each in tasks_of(run, 7)}
    assert model in run.tags
    assert found == {
        f"acquire {model}": set(),
        f"reference {model}": set(),
        f"export {model} by skl2onnx": {"export"},
        f"verify {model} onnx": set(),
        f"parity {model} onnx": {"parity"},
        f"report {model}": set(),
        f"publish {model}": set(),
    }


def test_a_run_leaves_a_table_of_parity_and_a_link_to_its_release(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue()

    release_model(model)

    left = {each.key: str(each.data) for each in artifacts_of(run_of(model))}
    heads = [line for line in left[f"parity-{model}"].splitlines() if line.startswith("|")]
    assert any("probabilities" in line for line in heads)
    assert f"({store_settings().browser_url}/{model}/1/)" in left[f"release-{model}"]


def test_a_long_stage_shows_how_far_it_is_and_at_its_end_that_it_is_done(
    catalogue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_UPDATES", 0.1)
    model = catalogue(converters={"onnx": ["tells"]})
    words = f"{model}: export (tells): thinking"
    seen: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        """Look at the bar as somebody at the UI does, without a word with the run."""
        with get_client(sync_client=True) as client:
            while not ended.wait(0.05):
                bars = client.read_artifacts(artifact_filter=BARS)
                seen.extend(float(str(bar.data)) for bar in bars if bar.description == words)

    watcher = threading.Thread(target=contextvars.copy_context().run, args=(watch,))
    watcher.start()
    try:
        release_model(model)
    finally:
        ended.set()
        watcher.join()

    (bar,) = [each for each in artifacts_of(run_of(model)) if each.description == words]
    assert float(str(bar.data)) == 100
    assert seen == sorted(seen)
    assert {25, 50, 75} & set(seen)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_is_tried_again_for_transient_errors_only_and_never_in_step_with_others(
    stage: Task[..., Any],
) -> None:
    assert stage.retries == 3
    assert stage.retry_condition_fn is is_transient
    assert stage.retry_jitter_factor == 0.5
    # each tag costs a question to the server, so only those stages have one whose number at
    # the same time is worth a limit: they take memory, or a GPU
    assert stage.tags == ({stage.name} & {"export", "parity"})
    # the reference runs in a thread, where Prefect's limit would interrupt nothing
    assert bool(stage.timeout_seconds) == (stage.name != "reference")


def test_an_error_that_another_try_cannot_cure_is_not_tried_again(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(converters={"onnx": ["crashes"]})
    with pytest.raises(ChildCrashedError):
        release_model(model)

    counts = {each.name: each.run_count for each in tasks_of(run_of(model), 2)}

    assert counts[f"export {model} by crashes"] == 1
