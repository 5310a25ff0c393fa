"""Working files go with their run, even if that was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tasks.scratch import scratch_folder

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from tasks.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "weights").write_bytes(b"much")
    print(folder, flush=True)
    sys.stdin.read()
"""


def hold(root: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-c", HOLDER, str(root)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    return holder, holder.stdout.readline().strip()


def test_a_folder_goes_when_its_work_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), scratch_folder(tmp_path) as folder:
        (folder / "weights" / "torn").write_bytes(b"much")

    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    holder, left = hold(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert [str(each) for each in tmp_path.iterdir()] == [left]

    with scratch_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_the_folder_of_a_living_process_stays(tmp_path: Path) -> None:
    holder, held = hold(tmp_path)

    with scratch_folder(tmp_path) as folder:
        names = {str(each) for each in tmp_path.iterdir()}

    assert names == {held, str(folder)}
    holder.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "conveyor-belt").mkdir()

    with scratch_folder(tmp_path):
        pass

    assert [each.name for each in tmp_path.iterdir()] == ["conveyor-belt"]
