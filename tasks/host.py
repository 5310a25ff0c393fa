"""What machine this is: the facts that a duration means nothing without."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

_MIB = 1024 * 1024
_SECONDS = 10
_QUERY = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


def host_facts() -> dict[str, str]:
    """Return platform, processor, memory and GPUs, in words; what cannot be told is left out."""
    facts = {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "memory_mb": str(psutil.virtual_memory().total // _MIB),
        "gpus": "; ".join(_gpus()),
        "python": platform.python_version(),
    }
    return {name: text for name, text in facts.items() if text}


def _cpu() -> str:
    """Return the processor's own name, from the kernel where it is Linux."""
    with suppress(OSError), Path("/proc/cpuinfo").open() as file:
        for line in file:
            name, _, text = line.partition(":")
            if name.strip() == "model name":
                return text.strip()
    return platform.processor()


def _gpus() -> list[str]:
    """Return name, memory and driver of each NVIDIA GPU, as ``nvidia-smi`` writes them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(  # noqa: S603 - no input of ours
            [tool, *_QUERY], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
        return [line.strip() for line in said.stdout.splitlines() if line.strip()]
    return []
