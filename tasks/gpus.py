"""The GPUs of one host: which there are, and who has which.

Each GPU has a lock file that all workers of the host see. A worker takes the lock alone, so no
other worker has that GPU, and then shares it with the runs that it starts. A run whose worker
was killed still holds its share: nobody gets that GPU before the run has ended. One that had not
yet taken its share when its worker died fails: somebody else may have the GPU by then. The
kernel frees a lock with the process that held it, however that ends.

Prefect has no such thing: its limits count runs, and do not say which of several devices a run
gets; a limit for each device is freed a minute after its holder died, not at once.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.domain.errors import LostRunError
from tasks.settings import gpu_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

LENT_LOCK = "CONVEYOR_LENT_GPU_LOCK"
"""Variable by which a worker tells a run the lock of the GPU that it lends it."""

LENDER = "CONVEYOR_GPU_LENDER"
"""Variable by which a worker tells a run who lends it the GPU: its process, and when that began."""

_QUERY = ("--query-gpu=index,uuid", "--format=csv,noheader")
_SECONDS = 20


def host_gpus() -> tuple[str, ...]:
    """Return the GPUs that workers of this host may use, as ``CUDA_VISIBLE_DEVICES`` takes them.

    The settings' own list; else those of ``nvidia-smi``, by UUID, of which an own
    ``CUDA_VISIBLE_DEVICES`` leaves some.
    """
    configured = gpu_settings().devices
    if configured is not None:
        return configured
    by_index = _uuids()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(by_index.values())
    named = filter(None, (name.strip() for name in visible.split(",")))
    return tuple(by_index.get(name, name) for name in named)


def gpu_is_there() -> bool:
    """Whether this host shows an NVIDIA GPU: its device file (of WSL too), or ``nvidia-smi``."""
    files = (*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg"))
    return bool(files or _uuids())


def _uuids() -> dict[str, str]:
    """Return the UUID of each GPU by its index, as ``nvidia-smi`` tells them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(  # noqa: S603 - no input of ours
            [tool, *_QUERY], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
        lines = [line.split(",") for line in said.stdout.splitlines() if "," in line]
        return {index.strip(): uuid.strip() for index, uuid in lines}
    return {}


class GpuClaim:
    """One GPU that is this process's, until it is released or the process ends."""

    def __init__(self, gpu: str, lock: Path, descriptor: int) -> None:
        self.gpu = gpu
        self.lock = lock
        self._descriptor = descriptor

    def environment(self) -> dict[str, str]:
        """Return the variables of a run that gets this GPU, and no other."""
        return {
            "CUDA_VISIBLE_DEVICES": self.gpu,
            LENT_LOCK: str(self.lock),
            LENDER: f"{os.getpid()} {_began(os.getpid())}",
        }

    def release(self) -> None:
        """Give the GPU back; a run that still has it keeps it until its end."""
        os.close(self._descriptor)


def claim(gpu: str) -> GpuClaim | None:
    """Take a GPU of this host; None if another worker, or a run of one, has it."""
    path = _lock_path(gpu)
    descriptor = _open(path)
    # alone first, so that no run of a dead worker has it; then shared, for this worker's own runs
    for how in (fcntl.LOCK_EX, fcntl.LOCK_SH):
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:  # at the second: another worker came between
            os.close(descriptor)
            return None
    return GpuClaim(gpu, path, descriptor)


@contextmanager
def hold_lent_gpu() -> Iterator[None]:
    """Hold the GPU that the worker lent to this run; outside such a worker, do nothing.

    Raises:
        LostRunError: The worker has died before this run could take its share of the lock, which
            the kernel freed with it; worth another try, on another worker.
    """
    path = os.environ.get(LENT_LOCK)
    if not path:
        yield
        return
    descriptor = _open(Path(path))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        # A lender that lives has held its own share all along, so nobody came between.
        pid, _, began = os.environ.get(LENDER, "").partition(" ")
        if not began or _began(int(pid)) != began:
            message = (
                f"GPU {os.environ.get('CUDA_VISIBLE_DEVICES')}: the worker that lent it (process "
                f"{pid or 'unknown'}) died while this run started. Another worker may have the GPU."
            )
            raise LostRunError(message)
        yield
    finally:
        os.close(descriptor)


def _lock_path(gpu: str) -> Path:
    folder = gpu_settings().locks
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)  # for the workers of every user, as /tmp itself
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', gpu)}.lock"


def _open(path: Path) -> int:
    """Open a lock file, which may be another user's.

    Created only where it is not there: with ``O_CREAT``, kernels that protect regular files
    (``fs.protected_regular``) refuse another user's file in a folder like ``/tmp``.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, flags)
        with suppress(FileExistsError):  # another worker was quicker
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)


def _began(pid: int) -> str:
    """Return when a process began, in the kernel's ticks; empty if it is gone, or is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()  # its name may have spaces in it
    return "" if state in "ZX" else fields[18]
