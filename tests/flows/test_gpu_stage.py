"""A stage on a GPU worker: a real worker with two GPUs (by name), and all that can go wrong."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.deployments import arun_deployment
from prefect.runtime import flow_run

from flows.release_model import release_model
from tasks import remote
from tasks.domain.errors import (
    ConfigurationError,
    GpuUnavailableError,
    LostRunError,
    NoWorkerError,
    ParityError,
    ReleaseError,
    RemoteError,
)
from tasks.remote import DEPLOYMENT, on_gpu
from tasks.runtime import STAGE, open_workshop, workshop
from tasks.settings import gpu_settings, store_settings
from tasks.storage.s3 import open_store
from tests.flows.conftest import forget_settings
from tests.support.gpu_functions import (
    DieRequest,
    FailRequest,
    Stayed,
    StayRequest,
    Uppered,
    UpperRequest,
    die_once,
    fail,
    stay,
    upper,
)
from tests.support.gpu_workers import GPUS, deploy, gpu_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from prefect.client.schemas.objects import FlowRun

    from deployments.s3_server import S3Server


@pytest.fixture(scope="module", autouse=True)
def worker(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    deploy()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        patch.setenv("CONVEYOR_GPU_POLL_SECONDS", "0.3")
        forget_settings()
        gpu_settings.cache_clear()
        with gpu_worker(tmp_path_factory.mktemp("gpu"), "one-with-two"):
            yield
    gpu_settings.cache_clear()
    forget_settings()


def runs_called(title: str) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[title]))
        )


def in_a_flow(function: Callable[[], Any], retries: int = 0) -> Any:
    """Call ``function`` as a stage does: in a flow run with a workshop."""

    @flow(retries=retries)
    def caller() -> Any:
        with open_workshop():
            return function()

    return caller()


def test_one_worker_runs_as_many_as_it_has_gpus_and_lends_each_run_one(tmp_path: Path) -> None:
    @task
    def one(who: int) -> Stayed:
        return on_gpu(stay, StayRequest(seconds=0.5, who=who, meet=tmp_path), f"stay {who}")

    def all_of_them() -> list[Stayed]:
        return [each.result() for each in [one.submit(who) for who in range(4)]]

    stays = sorted(in_a_flow(all_of_them), key=lambda each: each.began)

    assert {each.gpu for each in stays} == set(GPUS)
    for gpu in GPUS:
        first, *others = [each for each in stays if each.gpu == gpu]
        for later in others:
            assert first.ended <= later.began
            first = later
    assert any(a.began < b.began < a.ended for a in stays for b in stays), "no two ran at once"


def test_files_go_there_and_come_back_and_are_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "sub" / "b.txt").write_text("def")

    def there_and_back() -> tuple[str, dict[str, str], str]:
        shop = workshop()
        request = UpperRequest(tree=shop.keep(tmp_path, "lower"))
        answer = on_gpu(upper, request, "upper")
        again = on_gpu(upper, UpperRequest(tree=answer.tree), "upper again")
        folder = shop.fetch(again.tree)
        texts = {
            path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")
        }
        return shop.prefix, texts, answer.given.root

    prefix, texts, given = in_a_flow(there_and_back)

    assert texts == {"a.txt": "ABC", "sub/b.txt": "DEF"}
    assert given.startswith(prefix)
    assert list(open_store(store_settings()).keys(prefix)) == []


def test_what_goes_wrong_there_comes_back_as_its_class_with_its_whole_message(
    tmp_path: Path,
) -> None:
    message = "model: what (expected: a, got: b). " + "\n".join(f"line {i}" for i in range(1500))
    calls = {
        "fails": (fail, FailRequest(kind="ParityError", message=message)),
        "has a bug": (fail, FailRequest(kind="-", message="k")),
        "dies": (die_once, DieRequest(marker=tmp_path / "marker")),
    }

    @task
    def one(title: str) -> BaseException | None:
        try:
            on_gpu(*calls[title], title)  # type: ignore[arg-type]
        except ReleaseError as error:
            return error
        return None

    def all_of_them() -> dict[str, BaseException | None]:
        asked = {title: one.submit(title) for title in calls}
        return {title: each.result() for title, each in asked.items()}

    raised = in_a_flow(all_of_them)

    assert (type(raised["fails"]), str(raised["fails"])) == (ParityError, message)
    assert type(raised["has a bug"]) is RemoteError
    assert re.search(r"^has a bug: its run failed: .*KeyError: 'k'", str(raised["has a bug"]))
    assert type(raised["dies"]) is LostRunError
    assert re.search("^dies: its run crashed: .*-9", str(raised["dies"]))


def test_a_caller_that_is_tried_again_finds_the_run_that_it_had_started(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    answers: list[Uppered] = []

    def fails_once() -> tuple[list[Uppered], str]:
        shop = workshop()
        # the stage before this one is done again as well: its files get another root
        request = UpperRequest(tree=shop.keep(tmp_path, "lower"))
        answers.append(on_gpu(upper, request, "found again"))
        if len(answers) == 1:
            shop.lent = True  # as if the process was killed: its files are not cleared away
            raise OSError
        return answers, (shop.fetch(answers[1].tree) / "a.txt").read_text()

    (first, second), text = in_a_flow(fails_once, retries=1)

    assert first == second
    assert text == "ABC"
    assert len(runs_called("found again")) == 1


def test_what_nobody_waits_for_any_more_is_not_done() -> None:
    @flow
    def impatient() -> str:
        return str(flow_run.id)

    parameters = {"title": "forgotten", "stage": "no.such:stage", "request": {}}
    asked = arun_deployment(DEPLOYMENT, parameters=parameters | {"owner": impatient()}, timeout=120)
    run = asyncio.run(asked)

    assert run.state is not None
    assert run.state.is_cancelled()
    assert "has ended as Completed" in str(run.state.message)


def test_a_run_that_is_killed_is_followed_by_another(tmp_path: Path) -> None:
    @task(**STAGE)
    def stage() -> Stayed:
        return on_gpu(die_once, DieRequest(marker=tmp_path / "marker"), "dies once")

    in_a_flow(stage)

    assert sorted(str(each.state_name) for each in runs_called("dies once")) == [
        "Completed",
        "Crashed",
    ]


def test_parity_on_cuda_without_a_cuda_provider_fails_and_says_what_to_install(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(device="cuda")

    with pytest.raises(GpuUnavailableError) as raised:
        release_model(model)

    said = str(raised.value)
    assert said.startswith(f"{model}: parity ONNX on CUDA: worker 'one-with-two' on host ")
    for words in (
        "expected CUDAExecutionProvider and a GPU, got onnxruntime 1.",
        "fake-",
        "extra 'gpu'",
    ):
        assert words in said
    assert list(open_store(store_settings()).keys(f"{model}/")) == []


def test_both_devices_means_the_cpu_here_and_a_gpu_there(catalogue: Callable[..., str]) -> None:
    model = catalogue(device="both")

    with pytest.raises(GpuUnavailableError, match="parity ONNX on CUDA"):
        release_model(model)


def test_a_torch_network_for_cuda_is_trained_on_a_gpu_worker_or_not_at_all(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(**DIGITS)

    with pytest.raises(GpuUnavailableError, match=r"training on CUDA: .*expected a GPU that torch"):
        release_model(model)

    (run,) = runs_called(f"{model}: training on CUDA")
    assert run.state_name == "Failed"


def test_where_no_worker_is_seen_it_says_so_at_once_and_fails_after_the_stated_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deploy("nobody", pool="cpu")  # on which no worker runs
    monkeypatch.setattr(remote, "DEPLOYMENT", "gpu-stage/nobody")
    monkeypatch.setenv("CONVEYOR_GPU_PATIENCE_SECONDS", "2")
    gpu_settings.cache_clear()
    with pytest.raises(NoWorkerError, match=r"no worker was seen for 2 s \(there never was one\)"):
        in_a_flow(lambda: on_gpu(stay, StayRequest(seconds=0), "nobody comes"))

    gpu_settings.cache_clear()
    assert "no worker has been seen lately" in caplog.text
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts()
    (words,) = [each.data for each in artifacts if each.key == "waits-nobody-comes"]
    assert "python -m deployments.worker --pool cpu" in str(words)
    (run,) = runs_called("nobody comes")
    assert run.state_name == "Cancelled"


def test_without_a_deployment_it_says_what_declares_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "DEPLOYMENT", "gpu-stage/absent")

    with pytest.raises(ConfigurationError, match=r"python -m deployments\.bootstrap"):
        in_a_flow(lambda: on_gpu(stay, StayRequest(seconds=0), "absent"))


DIGITS: dict[str, Any] = {
    "name": "digits",
    "source": {"kind": "train-torch", "dataset": "digits", "network": "mlp", "epochs": 1},
    "signature": {
        "inputs": [
            {
                "name": "pixels",
                "dtype": "float32",
                "shape": ["batch", 64],
                "domain": {"kind": "range", "low": 0, "high": 16},
            }
        ],
        "outputs": [
            {"name": "logits", "dtype": "float32", "shape": ["batch", 10], "role": "logits"}
        ],
    },
    "device": "cuda",
}
