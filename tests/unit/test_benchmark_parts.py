"""The parts of the benchmarks of many machines that need no stack, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.machines import write_catalogue
from benchmarks.measuring import Usage, head, kind_of, ratios, row
from benchmarks.server_growth import Size, grown
from deployments.leash import leashed
from tasks.catalogue import load_catalogue

BUSY = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass\n"
STARTS_A_BUSY_ONE = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])\n"
STARTS = """
import sys
from benchmarks.catalogue import main
sys.argv = ["catalogue", "--models", "1"]
main()
"""
ROOT = Path(__file__).parents[2]


def test_the_recipes_of_the_benchmark_are_valid_and_differ(tmp_path: Path) -> None:
    names = write_catalogue(tmp_path, 5, timeout=7)

    recipes = load_catalogue(tmp_path)

    assert [each.name for each in recipes] == names
    assert {each.limits.timeout_seconds for each in recipes} == {7}
    assert len({each.source.model_dump_json() for each in recipes}) == 5


def test_the_cpu_of_a_process_that_has_come_and_gone_is_counted() -> None:
    held = "import subprocess, sys, time\n" + STARTS_A_BUSY_ONE + "print(); time.sleep(600)"
    command = leashed([sys.executable, "-u", "-c", held])

    with Usage() as usage:
        leash = subprocess.Popen(
            command, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert leash.stdout
        leash.stdout.readline()
    with leash:
        leash.communicate()

    assert 0.9 <= usage.seconds["store"] <= 3


def test_a_process_is_told_by_its_command() -> None:
    assert kind_of("python leash.py 3 python -m prefect server services start") == "server"
    assert kind_of("python leash.py 3 /usr/lib/postgresql/15/bin/postgres -D x") == "server"
    assert kind_of("python leash.py 3 python -m deployments.worker --pool cpu") == "runs"
    assert kind_of("python leash.py 3 weed server -s3") == "store"


def begun(tmp_path: Path, script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )


def wait_for(pattern: str, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline, pattern
        time.sleep(0.05)


def left_in(folder: Path) -> list[str]:
    """Return the benchmarks' files that are left, and the commands that have the folder in them."""
    commands = (" ".join(e.info["cmdline"] or ()) for e in psutil.process_iter(["cmdline"]))
    files = (str(path) for path in folder.glob("conveyor-bench-*"))
    return [*files, *(each for each in commands if str(folder) in each)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_benchmark_that_is_told_to_end_leaves_nothing(tmp_path: Path, number: int) -> None:
    with begun(tmp_path, STARTS) as process:
        wait_for("conveyor-bench-*/stack/logs/bootstrap.log", tmp_path)

        process.send_signal(number)
        _, words = process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGINT, words
    assert not left_in(tmp_path)


def test_a_benchmark_whose_server_does_not_start_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    impatient = f"import deployments.local\ndeployments.local._SERVER_SECONDS = 0.0\n{STARTS}"

    with begun(tmp_path, impatient) as process:
        _, words = process.communicate(timeout=60)

    assert process.returncode == 1
    assert words.startswith("benchmark: prefect-server: no answer from")
    assert not left_in(tmp_path)


def test_growth_is_scaled_to_a_thousand_runs_and_rates_to_the_first() -> None:
    before, after = Size(10, 5, 200, 0, 5, 1), Size(12, 6, 201, 30, 55, 21)

    assert grown(before, after, 10) == Size(200, 100, 100, 3_000, 5_000, 2_000)
    assert ratios([50.0, 75.0]) == [1.0, 1.5]


def test_a_table_can_be_pasted() -> None:
    table = [head("workers", "ratio"), row(2, 1.8345), row("all", 1_234.56)]

    assert "\n".join(table) == "| workers | ratio |\n|---|---|\n| 2 | 1.83 |\n| all | 1,234.6 |"
