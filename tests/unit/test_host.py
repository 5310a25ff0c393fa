"""What a manifest says of the machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil

from tasks.host import host_facts

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def put_nvidia_smi(folder: Path, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_processor_and_memory_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    facts = host_facts()

    assert facts["cpu"]
    assert facts["cores"] == str(os.cpu_count())
    assert facts["memory_mb"] == str(psutil.virtual_memory().total // 2**20)
    assert "gpus" not in facts


def test_gpus_are_said_as_their_driver_names_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_nvidia_smi(tmp_path, "echo 'NVIDIA L4, 23034 MiB, 550.54'; echo 'NVIDIA T4, 15360 MiB, 1'")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert host_facts()["gpus"] == "NVIDIA L4, 23034 MiB, 550.54; NVIDIA T4, 15360 MiB, 1"


def test_a_driver_that_does_not_answer_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_nvidia_smi(tmp_path, "exit 9")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "gpus" not in host_facts()
