"""``make demo`` to its table, with one model that works and one that does not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, TypeAlias

import httpx
import pytest
import yaml

from deployments.local import ROOT
from tests.flows.conftest import LINEAR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAYS = "It stays up until Ctrl-C"
Demo: TypeAlias = tuple[str, subprocess.Popen[bytes]]


def environment(models: Path) -> dict[str, str]:
    """Return the variables of a demo whose catalogue is ``good`` and ``bad``."""
    models.mkdir()
    for name, converters in (("good", ["skl2onnx"]), ("bad", ["crashes"])):
        recipe = LINEAR | {"name": name, "converters": {"onnx": converters}}
        (models / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    packages = ["tasks.converters", "tests.support.faulty_converters"]
    return os.environ | {
        "CONVEYOR_CATALOGUE": str(models),
        "CONVEYOR_CONVERTER_PACKAGES": json.dumps(packages),
        "KEEP": "1",
    }


def said_by(demo: subprocess.Popen[bytes], output: Path) -> str:
    """Return what the demo has said once it stays up, or has ended."""
    deadline = time.monotonic() + 300
    while STAYS not in output.read_text() and demo.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return output.read_text()


def addresses_in(said: str) -> list[str]:
    return re.findall(r"^  (?:Prefect UI|bucket browser) +(\S+)$", said, re.MULTILINE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Run the demo with ``KEEP=1`` until it stays up; yield what it said."""
    folder = tmp_path_factory.mktemp("demo")
    output = folder / "output"
    command = [sys.executable, "-m", "deployments.demo", "good", "bad"]
    with output.open("w") as file:
        process = subprocess.Popen(
            [*command, "--folder", str(folder / "stack")],
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env=environment(folder / "models"),
        )
    try:
        yield said_by(process, output), process
    finally:
        process.terminate()
        process.wait(30)


def test_the_table_says_of_a_release_how_close_it_is_how_large_and_where(demo: Demo) -> None:
    rows = demo[0].partition("What was released")[2].splitlines()

    (good,) = [row for row in rows if row.split()[:1] == ["good"]]
    (onnx,) = [row for row in rows if "→ ONNX" in row]
    assert re.search(r"good +scikit-learn +\d+ +good/1/", good)
    assert re.search(r"equal, within \S+ +\d+ kB", onnx)


def test_the_table_says_of_a_failed_run_why(demo: Demo) -> None:
    rows = demo[0].partition("What was released")[2].splitlines()

    (row,) = [row for row in rows if re.match(r" *bad +failed", row)]
    (reason,) = [row for row in rows if row.startswith("bad failed: ")]
    assert "nothing published" in row
    assert "ChildCrashedError: bad: export (crashes): the child process ended by" in reason
    assert "SIGSEGV" in reason


def test_the_addresses_that_it_prints_answer_while_it_stays_up(demo: Demo) -> None:
    addresses = addresses_in(demo[0])

    answers = [
        httpx.get(
            each, trust_env=False, follow_redirects=True, headers={"Accept": "text/html"}
        ).status_code
        for each in addresses
    ]

    assert answers == [200] * 4, "the UI and the bucket, at the start and at the end"


def test_ctrl_c_ends_it_and_the_exit_code_tells_of_the_failed_run(demo: Demo) -> None:
    _, process = demo
    assert process.poll() is None

    process.send_signal(signal.SIGINT)

    assert process.wait(30) == 1
