"""The parts of the benchmarks of many machines that need no machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.machines import write_catalogue
from benchmarks.measuring import Usage, head, kind_of, ratios, row
from benchmarks.server_growth import Size, grown
from deployments.leash import leashed
from tasks.catalogue import load_catalogue

BUSY = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass\n"
STARTS_A_BUSY_ONE = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])\n"
WAITS = """
import time
from benchmarks.measuring import benchmark
with benchmark() as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


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


def test_a_benchmark_that_is_told_to_end_leaves_no_folder() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WAITS]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()

        process.send_signal(signal.SIGTERM)

        assert process.wait(20) != 0
    assert not folder.exists()


def test_growth_is_scaled_to_a_thousand_runs_and_rates_to_the_first() -> None:
    before, after = Size(10, 5, 200, 0, 5, 1), Size(12, 6, 201, 30, 55, 21)

    assert grown(before, after, 10) == Size(200, 100, 100, 3_000, 5_000, 2_000)
    assert ratios([50.0, 75.0]) == [1.0, 1.5]


def test_a_table_can_be_pasted() -> None:
    table = [head("workers", "ratio"), row(2, 1.8345), row("all", 1_234.56)]

    assert "\n".join(table) == "| workers | ratio |\n|---|---|\n| 2 | 1.83 |\n| all | 1,234.6 |"
