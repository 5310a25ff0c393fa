"""The locks of a host's GPUs: real processes that take them, are killed, and are replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tasks.gpus import claim
from tasks.settings import gpu_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN_THAT_TAKES_ITS_TIME = """
import sys
from tasks.domain.errors import LostRunError
from tasks.gpus import hold_lent_gpu
print("the run starts", flush=True)
sys.stdin.readline()
try:
    with hold_lent_gpu():
        print("has it", flush=True)
except LostRunError as error:
    print("LostRunError", error, flush=True)
"""


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CONVEYOR_GPU_LOCKS", str(tmp_path / "locks"))
    gpu_settings.cache_clear()
    yield
    gpu_settings.cache_clear()


def test_a_run_whose_worker_is_killed_keeps_its_gpu_until_it_ends() -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN_WITHOUT_A_WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout
    assert run.stdout.readline() == "held\n"

    while_it_runs = claim("fake-0")
    run.kill()
    run.wait()

    assert while_it_runs is None
    freed = claim("fake-0")
    assert freed is not None
    freed.release()


RUN_WITHOUT_A_WORKER = """
import os, sys
from tasks.gpus import LENT_LOCK, claim, hold_lent_gpu
lent = claim("fake-0")
os.environ |= lent.environment()
with hold_lent_gpu():
    lent.release()  # as if the worker was killed
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("another_worker", [True, False], ids=["claimed-anew", "free"])
def test_a_run_whose_worker_is_killed_before_it_took_its_lock_does_not_use_the_gpu(
    another_worker: bool,  # noqa: FBT001 - a case
) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER_THAT_STARTS_A_RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout
    assert worker.stdin
    assert worker.stdout.readline() == "the run starts\n"
    worker.kill()
    worker.wait()

    theirs = claim("fake-0") if another_worker else None
    worker.stdin.write("its imports are done\n")
    worker.stdin.close()

    assert (theirs is not None) is another_worker
    assert worker.stdout.read().startswith("LostRunError GPU fake-0: the worker that lent it")
    if theirs:
        theirs.release()
    freed = claim("fake-0")
    assert freed is not None
    freed.release()


# the run has its worker's standard input and output, as Prefect's processes have not
WORKER_THAT_STARTS_A_RUN = f"""
import os, subprocess, sys
from tasks.gpus import claim
run = {RUN_THAT_TAKES_ITS_TIME!r}
subprocess.Popen([sys.executable, "-c", run], env=os.environ | claim("fake-0").environment()).wait()
"""


def test_a_run_whose_worker_lives_uses_the_gpu() -> None:
    worker = subprocess.run(
        [sys.executable, "-c", WORKER_THAT_STARTS_A_RUN],
        input="its imports are done\n",
        capture_output=True,
        text=True,
        check=True,
    )

    assert worker.stdout.splitlines() == ["the run starts", "has it"]


def test_the_lock_file_of_another_user_is_opened_where_the_kernel_protects_regular_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = claim("fake-0")
    assert first is not None
    first.release()
    real = os.open

    def as_with_fs_protected_regular(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and path.exists():
            raise FileExistsError if flags & os.O_EXCL else PermissionError(path)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", as_with_fs_protected_regular)
    again = claim("fake-0")

    assert again is not None
    again.release()


def test_a_gpu_that_is_claimed_is_nobody_elses(tmp_path: Path) -> None:
    first = claim("GPU-1/2")
    second = claim("GPU-1/2")

    assert first is not None
    assert second is None
    assert first.environment()["CUDA_VISIBLE_DEVICES"] == "GPU-1/2"
    assert first.lock.parent == tmp_path / "locks"
