"""A framework that dies, hangs or grows takes its own process along and nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tasks.domain.errors import (
    ChildCrashedError,
    ExportError,
    MemoryLimitError,
    TimeLimitError,
    VerificationError,
)
from tasks.domain.recipe import Limits
from tasks.isolation import Call, Children, Family
from tests.support import child_functions as child
from tests.support.child_functions import Number

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def own_children(tmp_path: Path) -> Iterator[Children]:
    with Children(tmp_path) as children:
        yield children


def call(*, memory_mb: int = 2_000, timeout_seconds: int = 60) -> Call:
    limits = Limits(memory_mb=memory_mb, timeout_seconds=timeout_seconds)
    return Call("export (fake)", "iris", Family.LIGHT, limits, ExportError)


def wait_until_gone(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_function_runs_in_another_process_that_is_kept_for_the_next_call(
    own_children: Children,
) -> None:
    first = own_children.call(child.tell, Number(value=0), call())
    second = own_children.call(child.tell, Number(value=0), call())

    assert first.value.pid == second.value.pid != os.getpid()


def test_a_prepared_child_answers_the_call_with_what_it_prepared(own_children: Children) -> None:
    own_children.prepare(child.remember, Number(value=7), Family.LIGHT)

    answer = own_children.call(child.tell, Number(value=0), call()).value

    assert answer.environment["REMEMBERED"] == "7"
    assert own_children.call(child.double, Number(value=4), call()).value == Number(value=8)


def test_a_preparation_that_fails_does_not_spoil_the_call(own_children: Children) -> None:
    own_children.prepare(child.raise_foreign, Number(value=7), Family.LIGHT)

    assert own_children.call(child.double, Number(value=4), call()).value == Number(value=8)


def test_a_child_that_dies_of_its_preparation_is_told_by_the_call(own_children: Children) -> None:
    own_children.prepare(child.die_of_segfault, Number(value=0), Family.LIGHT)

    with pytest.raises(ChildCrashedError, match="SIGSEGV") as caught:
        own_children.call(child.double, Number(value=4), call())

    assert "touching address zero" in str(caught.value)
    assert own_children.call(child.double, Number(value=4), call()).value == Number(value=8)


def test_a_child_that_is_up_is_not_prepared_again(own_children: Children) -> None:
    own_children.call(child.tell, Number(value=0), call())

    own_children.prepare(child.remember, Number(value=7), Family.LIGHT)

    assert (
        "REMEMBERED" not in own_children.call(child.tell, Number(value=0), call()).value.environment
    )


def test_families_have_processes_of_their_own(own_children: Children) -> None:
    light = own_children.call(child.tell, Number(value=0), call()).value
    legacy_call = Call("export", "iris", Family.TENSORFLOW_LEGACY)
    legacy = own_children.call(child.tell, Number(value=0), legacy_call).value

    assert light.pid != legacy.pid
    assert legacy.environment["TF_USE_LEGACY_KERAS"] == "1"
    assert "TF_USE_LEGACY_KERAS" not in light.environment


def test_progress_reaches_the_parent(own_children: Children) -> None:
    heard: list[tuple[float, str]] = []
    listening = Call(
        "export", "iris", Family.LIGHT, on_progress=lambda done, text: heard.append((done, text))
    )

    answer = own_children.call(child.double, Number(value=21), listening)

    assert answer.value == Number(value=42)
    assert heard == [(0.5, "half")]


def test_what_a_library_prints_is_never_taken_for_an_answer(own_children: Children) -> None:
    answer = own_children.call(child.print_from_c, Number(value=7), call())

    assert answer.value == Number(value=7)


def test_a_flood_of_output_does_not_block_the_child(own_children: Children) -> None:
    answer = own_children.call(child.write_much, Number(value=20), call(timeout_seconds=20))

    assert answer.value == Number(value=20)


def test_a_frameworks_exception_becomes_the_stages_error(own_children: Children) -> None:
    with pytest.raises(ExportError, match=r"^iris: export \(fake\): KeyError: 5$"):
        own_children.call(child.raise_foreign, Number(value=5), call())


def test_our_own_error_comes_home_as_itself(own_children: Children) -> None:
    with pytest.raises(VerificationError, match=r"^file 5: torn\. Fetch it again\.$"):
        own_children.call(child.raise_own, Number(value=5), call())


def test_a_segfault_names_stage_model_signal_and_last_words(own_children: Children) -> None:
    with pytest.raises(ChildCrashedError) as caught:
        own_children.call(child.die_of_segfault, Number(value=0), call())

    words = str(caught.value)
    assert words.startswith("iris: export (fake): the child process ended by signal SIGSEGV")
    assert "touching address zero" in words
    assert "MiB" in words


def test_leaving_without_an_answer_is_a_crash(own_children: Children) -> None:
    with pytest.raises(ChildCrashedError, match="exit code 3"):
        own_children.call(child.leave, Number(value=3), call())


def test_the_next_call_after_a_crash_works(own_children: Children) -> None:
    with pytest.raises(ChildCrashedError):
        own_children.call(child.leave, Number(value=3), call())

    answer = own_children.call(child.double, Number(value=1), call())

    assert answer.value == Number(value=2)


def test_a_hang_ends_at_the_time_limit_with_all_its_processes(
    own_children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    monkeypatch.setenv("TEST_PID_FILE", str(pids))

    with pytest.raises(TimeLimitError, match="no answer within its limit of 2 s"):
        own_children.call(child.hang, Number(value=0), call(timeout_seconds=2))

    assert all(wait_until_gone(int(pid)) for pid in pids.read_text().split())


def test_a_child_over_its_memory_limit_is_ended(own_children: Children) -> None:
    with pytest.raises(MemoryLimitError, match="more than its limit of 300 MiB"):
        own_children.call(child.allocate, Number(value=600), call(memory_mb=300))


def test_an_error_of_a_limit_names_stage_model_peak_and_last_words(
    own_children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PID_FILE", str(tmp_path / "pids"))
    with pytest.raises(TimeLimitError) as late:
        own_children.call(child.hang, Number(value=0), call(timeout_seconds=2))
    with pytest.raises(MemoryLimitError) as large:
        own_children.call(child.allocate, Number(value=600), call(memory_mb=300))

    for words in map(str, (late.value, large.value)):
        assert words.startswith("iris: export (fake): ")
        assert re.search(r"\d MiB", words)
        assert "in the recipe" in words
    assert "Its last lines:\n" in str(late.value)
    assert "waiting for what never comes" in str(late.value)
    assert "taking 600 MiB" in str(large.value)


@pytest.fixture
def narrow_group(tmp_path: Path) -> Iterator[Path]:
    """Lend a group of processes that together may take 200 MiB, by the kernel's own rule."""
    root = Path("/sys/fs/cgroup")
    # version 1 has a hierarchy for memory alone, version 2 has one for everything
    group = (root / "memory" if (root / "memory").is_dir() else root) / tmp_path.name
    limits = ("memory.limit_in_bytes", "memory.max")
    try:
        group.mkdir()
        limit = next(group / each for each in limits if (group / each).exists())
        limit.write_text(str(200 * 1024 * 1024))
    except (OSError, StopIteration):
        pytest.skip("no right to make a memory cgroup here")
    yield group
    group.rmdir()


def test_the_kernels_out_of_memory_kill_is_told_from_other_kills(
    own_children: Children, narrow_group: Path
) -> None:
    pid = own_children.call(child.tell, Number(value=0), call()).value.pid
    (narrow_group / "cgroup.procs").write_text(str(pid))

    with pytest.raises(MemoryLimitError) as caught:
        own_children.call(child.allocate, Number(value=600), call())

    words = str(caught.value)
    assert words.startswith("iris: export (fake): the child process ended by signal SIGKILL")
    assert "MiB: the kernel killed it, out of memory." in words
    assert "taking 600 MiB" in words


def test_the_peak_is_that_of_the_call_and_not_of_the_process(own_children: Children) -> None:
    large = own_children.call(child.allocate, Number(value=400), call())
    small = own_children.call(child.double, Number(value=1), call())

    assert large.cost.peak_mb > 400
    assert small.cost.peak_mb < 200


def test_what_one_call_leaves_in_cycles_is_gone_before_the_next(own_children: Children) -> None:
    pid = own_children.call(child.tell, Number(value=0), call()).value.pid
    own_children.call(child.hold_in_a_cycle, Number(value=2_100), call(memory_mb=4_000))

    after = own_children.call(child.double, Number(value=1), call())

    assert after.cost.peak_mb < 200
    assert own_children.call(child.tell, Number(value=0), call()).value.pid == pid


def test_a_child_that_keeps_much_for_ever_gives_way_to_a_new_one(own_children: Children) -> None:
    kept = own_children.call(child.keep_for_ever, Number(value=2_100), call(memory_mb=4_000))

    after = own_children.call(child.tell, Number(value=0), call())

    assert after.value.pid != kept.value.pid
    assert after.cost.peak_mb < 200


def test_a_child_killed_from_outside_names_the_signal(
    own_children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PID_FILE", str(tmp_path / "pids"))
    pid = own_children.call(child.tell, Number(value=0), call()).value.pid
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()

    with pytest.raises(ChildCrashedError, match="signal SIGKILL"):
        own_children.call(child.hang, Number(value=0), call(timeout_seconds=20))


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = textwrap.dedent(f"""
        from pathlib import Path
        from tasks.isolation import Call, Children, Family
        from tests.support import child_functions as child
        Children(Path({str(tmp_path)!r})).call(
            child.hang, child.Number(value=0), Call("export", "iris", Family.LIGHT))
    """)
    environment = os.environ | {"TEST_PID_FILE": str(pids)}
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment)
    while not (pids.exists() and len(pids.read_text().split()) == 2):
        time.sleep(0.05)

    parent.kill()
    parent.wait()

    assert all(wait_until_gone(int(pid)) for pid in pids.read_text().split())
