"""The workers' user of the compose file's store: made once, with the shipped policy and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from deployments.policies import policy
from deployments.secret_files import make

if TYPE_CHECKING:
    from deployments.s3_server import S3Server

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "my-models"


class Set(NamedTuple):
    """What the service ``s3-user`` of the compose file has."""

    environment: dict[str, str]
    secrets: Path
    state: Path

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", ROOT / "deployments" / "store_user.sh"],
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def known(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.state.read_text())
        return document


@pytest.fixture
def given(s3_server: S3Server, tmp_path: Path) -> Set:
    secrets, programs = tmp_path / "secrets", tmp_path / "programs"
    secrets.mkdir()
    programs.mkdir()
    (secrets / "S3_ROOT_KEY_ID").write_text(s3_server.access_key_id)
    (secrets / "S3_ROOT_SECRET").write_text(f"{s3_server.secret_access_key}\n")
    make(secrets)
    (programs / "mc").symlink_to(ROOT / "tests" / "support" / "mc.py")
    named = {f"{file.name}_FILE": str(file) for file in secrets.glob("S3_*")}
    environment = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MC_STATE": str(tmp_path / "mc.json"),
        "TMPDIR": str(tmp_path),
        "S3_ENDPOINT": s3_server.endpoint,
        "S3_BUCKET": BUCKET,
        "S3_POLICY": str(ROOT / "deployments" / "policies" / "worker.json"),
        "STORE_TRIES": "2",
    }
    return Set(environment | named, secrets, tmp_path / "mc.json")


def test_the_workers_get_a_user_of_their_own_with_the_shipped_policy(given: Set) -> None:
    done = given.run()

    assert done.returncode == 0, done.stderr
    known = given.known()
    key, secret = ((given.secrets / f"S3_WORKER_{n}").read_text() for n in ("KEY_ID", "SECRET"))
    assert known["users"] == {key: {"secret": secret, "policies": ["conveyor-worker"]}}
    assert known["policies"] == {"conveyor-worker": policy("worker", BUCKET)}


def test_a_second_time_changes_nothing(given: Set) -> None:
    given.run()
    first = given.known()

    again = given.run()

    assert again.returncode == 0, again.stderr
    assert {**given.known(), "told": []} == {**first, "told": []}


def test_no_secret_is_an_argument_or_printed_or_left_behind(given: Set) -> None:
    secrets = [file.read_text().strip() for file in given.secrets.glob("S3_*_SECRET")]

    done = given.run()

    told = json.dumps(given.known()["told"])
    assert len(secrets) == 2
    assert not any(each in told + done.stdout + done.stderr for each in secrets)
    assert {each.name for each in given.state.parent.iterdir()} == {
        *("mc.json", "programs", "secrets"),
    }


def test_a_store_that_lets_nobody_in_is_told(given: Set) -> None:
    done = given.run(S3_ENDPOINT="http://127.0.0.1:1")

    assert done.returncode == 1
    assert "http://127.0.0.1:1: the store's owner is not let in (mc: Unable" in done.stderr


@pytest.mark.parametrize(("name", "words"), [("KEY_ID", "the owner's key"), ("SECRET", "empty")])
def test_workers_that_are_the_owner_or_have_no_secret_are_refused(
    name: str, words: str, given: Set
) -> None:
    file = given.secrets / f"S3_WORKER_{name}"
    file.unlink()
    file.write_text((given.secrets / "S3_ROOT_KEY_ID").read_text() if name == "KEY_ID" else "")

    done = given.run()

    assert done.returncode == 1
    assert words in done.stderr
    assert not given.state.exists()
