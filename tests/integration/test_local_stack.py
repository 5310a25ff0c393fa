"""The stack as people meet it: from another shell, and when its owner is killed."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, cast

import httpx
import psutil
import pytest
from rich.console import Console

from deployments.databases import find_postgres
from deployments.local import ROOT, LocalStack
from deployments.processes import StackError
from deployments.runs import run_all
from deployments.summary import summary

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = "prefect deployment run 'release-model/default' -p model={model} --watch"
SECONDS = 180


def from_another_shell(stack: LocalStack, command: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` with nothing of this process's but what ``source .conveyor/env`` gives."""
    clean = {"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    script = f"source {stack.folder / 'env'}\n{command}"
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=clean,
        cwd="/",
        timeout=SECONDS,
    )


def processes_that_know(folder: Path) -> list[str]:
    """Return the living processes that have ``folder`` in their environment or arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(f"{process.pid} {process.cmdline()}")
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_a_model_is_released_from_another_shell(local_stack: LocalStack) -> None:
    done = from_another_shell(local_stack, RUN.format(model="iris-random-forest"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished successfully" in done.stdout.splitlines()[-1]


def test_a_model_that_was_released_before_is_up_to_date_and_the_demo_shows_the_release(
    local_stack: LocalStack,
) -> None:
    models = ["iris-random-forest"]
    list(run_all(local_stack, models, at_once=1))

    runs = list(run_all(local_stack, models, at_once=1))[-1]

    console = Console(file=StringIO(), width=160)
    console.print(summary(local_stack, runs))
    (run,) = runs
    table = cast("StringIO", console.file).getvalue()
    assert (run.released, run.stage, run.state) == (True, "up to date", "Up to date")
    assert run.message.startswith("iris-random-forest: version ")
    for words in ("up to date, nothing was done", "→ ONNX", "equal", "iris-random-forest/"):
        assert words in table


def test_without_postgresql_a_model_is_released_on_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.backing.find_postgres", lambda: None)
    with LocalStack(tmp_path / "stack") as stack:
        (run,) = list(run_all(stack, ["iris-random-forest"], at_once=1))[-1]
        words = stack.backing.words

    assert words.startswith(
        "SQLite, for one run at a time; no PostgreSQL was found (apt-get install"
    )
    assert run.released, run.message
    assert (tmp_path / "stack" / "prefect" / "prefect.db").exists()


def test_an_unknown_model_fails_and_says_which_there_are(local_stack: LocalStack) -> None:
    done = from_another_shell(local_stack, RUN.format(model="iris-random-florist"))

    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "iris-random-florist" in said
    assert "iris-random-forest" in said
    assert done.stdout.splitlines()[-1].startswith("Flow run finished in state 'Failed'")


def test_a_wrong_parameter_is_refused_before_a_run_exists(local_stack: LocalStack) -> None:
    done = from_another_shell(local_stack, RUN.format(model="iris-random-forest -p version=new"))

    assert done.returncode == 1
    assert "version" in done.stdout
    assert "Created flow run" not in done.stdout


def test_a_catalogue_run_does_not_wait_for_itself(local_stack: LocalStack) -> None:
    """Two of them hold no place that a model's run needs, although there are two places."""
    command = (
        """prefect deployment run release-catalog/default --watch """
        """-p 'models=["iris-random-florist"]'"""
    )

    done = from_another_shell(local_stack, f"{command} & {command}; wait")

    assert done.stdout.count("Flow run finished in state 'Failed'") == 2, done.stdout


def test_the_secrets_of_the_stack_are_for_its_owner_alone(local_stack: LocalStack) -> None:
    file = local_stack.folder / "env"

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert local_stack.environment()["CONVEYOR_STORE_SECRET_ACCESS_KEY"] in file.read_text()


@pytest.mark.usefixtures("local_stack")
def test_all_ports_are_loopback_ports() -> None:
    listening = [
        connection.laddr.ip
        for service in psutil.Process().children()
        for process in service.children(recursive=True)
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert len(listening) >= 3, "the Prefect server, the S3 port and the bucket browser"
    assert set(listening) == {"127.0.0.1"}


def test_the_bucket_can_be_browsed(local_stack: LocalStack) -> None:
    assert local_stack.browser_url
    answer = httpx.get(local_stack.browser_url, trust_env=False, headers={"Accept": "text/html"})

    assert answer.status_code == 200


def test_the_bucket_can_be_listed_by_the_command_that_the_demo_shows(
    local_stack: LocalStack,
) -> None:
    done = from_another_shell(
        local_stack, f"aws s3 ls --recursive {local_stack.bucket_url}/ && echo"
    )

    assert done.returncode == 0, done.stderr


def test_a_second_stack_in_the_same_folder_is_refused(local_stack: LocalStack) -> None:
    with (
        pytest.raises(StackError, match=rf"another stack runs there \(process {os.getpid()}\)"),
        LocalStack(local_stack.folder),
    ):
        pass

    local_stack.raise_if_broken()


def assert_whole(said: str, folder: Path) -> None:
    """Hold ``make up`` to what it says: which databases, a password, a worker with few rights."""
    (ui,) = re.findall(r"^  Prefect UI +(\S+)$", said, re.MULTILINE)
    (password,) = re.findall(r"^  its API +asks for conveyor:(\S+)$", said, re.MULTILINE)
    (words,) = re.findall(r"^  it stands on +(.+)$", said, re.MULTILINE)
    url = f"{ui}/api/flow_runs/filter"
    asked = httpx.post(url, json={}, trust_env=False)
    allowed = httpx.post(url, json={}, auth=("conveyor", password), trust_env=False)
    ours = [each for each in psutil.process_iter(["environ", "cmdline"]) if of(each, folder)]
    workers = [each for each in ours if "--pool" in each.info["cmdline"]]

    assert (asked.status_code, allowed.status_code) == (401, 200)
    assert ("PostgreSQL" in words) == (find_postgres() is not None)
    assert any("--no-services" in each.info["cmdline"] for each in ours) == ("services" in words)
    assert workers
    for worker in workers:
        assert worker.info["environ"]["CONVEYOR_STORE_ACCESS_KEY_ID"].startswith("worker")


def of(process: psutil.Process, folder: Path) -> bool:
    environment = process.info["environ"] or {}
    return str(environment.get("PREFECT_HOME", "")).startswith(str(folder))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_end_of_the_demo_ends_everything(how: signal.Signals, tmp_path: Path) -> None:
    output = tmp_path / "output"
    # as a background shell would start it: with SIGINT ignored
    command = f"trap '' INT; exec {sys.executable} -m deployments.demo --up --folder {tmp_path}/up"
    with output.open("w") as file:
        demo = subprocess.Popen(["bash", "-c", command], stdout=file, stderr=file, cwd=ROOT)
    wait_for(lambda: "until Ctrl-C" in output.read_text() or demo.poll() is not None, seconds=150)
    assert demo.poll() is None, output.read_text()
    assert len(processes_that_know(tmp_path / "up")) > 4
    assert_whole(output.read_text(), tmp_path / "up")

    demo.send_signal(how)
    demo.wait(20)

    assert wait_for(lambda: not processes_that_know(tmp_path / "up"), seconds=20)


def test_a_demo_that_is_stopped_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deployments.demo", "--up", "--folder", str(tmp_path / "up")]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
    assert wait_for(lambda: len(processes_that_know(tmp_path / "up")) > 3)

    demo.send_signal(signal.SIGTERM)
    output, _ = demo.communicate(timeout=20)

    assert demo.returncode == 130, output.decode()
    assert b"Traceback" not in output
    assert wait_for(lambda: not processes_that_know(tmp_path / "up"), seconds=20)
