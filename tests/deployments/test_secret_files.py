"""Secrets come from files, and are nowhere else than in the process that needs them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.secret_files import SecretError, filled_in, make

ROOT = Path(__file__).resolve().parents[2]


def test_a_variable_gets_the_secret_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "SERVER_AUTH").write_text("admin:a/b\n")

    got = filled_in({"PREFECT_API_AUTH_STRING": "{SERVER_AUTH}"}, tmp_path)

    assert got == {"PREFECT_API_AUTH_STRING": "admin:a/b"}


def test_in_a_url_a_secret_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "REDIS_PASSWORD").write_text("a/b@c")

    got = filled_in({"PREFECT_SERVER_DOCKET_URL": "redis://:{REDIS_PASSWORD}@redis/1"}, tmp_path)

    assert got == {"PREFECT_SERVER_DOCKET_URL": "redis://:a%2Fb%40c@redis/1"}


@pytest.mark.parametrize("name", ["PS1", "OTHER_URL"])
def test_the_variables_of_others_stay_as_they_are(name: str, tmp_path: Path) -> None:
    assert filled_in({name: "{HOST}"}, tmp_path) == {name: "{HOST}"}


@pytest.mark.parametrize("content", [None, "", "\n"], ids=["missing", "empty", "a-blank-line"])
def test_no_secret_is_an_error_that_names_it(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "SERVER_AUTH").write_text(content)

    with pytest.raises(SecretError, match=r"PREFECT_API_AUTH_STRING: .*SERVER_AUTH"):
        filled_in({"PREFECT_API_AUTH_STRING": "{SERVER_AUTH}"}, tmp_path)


def test_made_secrets_differ_are_private_and_stay(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = make(folder)
    before = {name: (folder / name).read_text() for name in first}

    assert make(folder) == []

    assert {name: (folder / name).read_text() for name in first} == before
    assert all(len(value) >= 16 for value in before.values())
    assert len(set(before.values())) == len(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_secret_that_somebody_chose_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "S3_ROOT_SECRET").write_text("chosen")

    make(tmp_path)

    assert (tmp_path / "S3_ROOT_SECRET").read_text() == "chosen"


def test_the_workers_are_not_the_stores_owner(tmp_path: Path) -> None:
    make(tmp_path)

    for name in ("KEY_ID", "SECRET"):
        assert (tmp_path / f"S3_WORKER_{name}").read_text() != (
            tmp_path / f"S3_ROOT_{name}"
        ).read_text()


def test_the_command_becomes_the_process_and_finds_the_secret(tmp_path: Path) -> None:
    (tmp_path / "SERVER_AUTH").write_text("admin:x")
    script = "import os; print(os.getpid(), os.environ['PREFECT_API_AUTH_STRING'])"
    environment = os.environ | {
        "PREFECT_API_AUTH_STRING": "{SERVER_AUTH}",
        "CONVEYOR_SECRETS": str(tmp_path),
    }

    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.secret_files", sys.executable, "-c", script],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )

    assert process.communicate()[0].split() == [str(process.pid), "admin:x"]


def test_without_its_secret_the_command_does_not_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deployments.secret_files", "true"],
        env=os.environ | {"CONVEYOR_X": "{NONE}", "CONVEYOR_SECRETS": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "CONVEYOR_X" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_runs_where_nothing_is_installed(tmp_path: Path) -> None:
    script = ROOT / "deployments" / "secret_files.py"

    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script), "make", str(tmp_path / "new")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "made POSTGRES_PASSWORD" in done.stdout
