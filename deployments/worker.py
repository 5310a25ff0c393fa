"""Start a worker: ``python -m deployments.worker --pool cpu|gpu``.

It refuses to start where the installed ONNX Runtime does not fit the pool. On SIGTERM it takes
no more runs, and ends when those that it has are done; after ``--grace`` seconds, or at a second
SIGTERM, it ends them too, and the server starts them again. A GPU worker claims the GPUs of this
host that no other worker has, and lends each run one.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from contextlib import nullcontext
from importlib import metadata
from typing import TYPE_CHECKING, Any

import anyio

from deployments.processes import StackError
from tasks.settings import gpu_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU, GPU = "cpu", "gpu"

_QUEUE = "default"
_GRACE_SECONDS = 1_700.0
"""A little less than the half hour that compose file and manifests give a container to end."""

_RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
    "onnxruntime-training",
)
"""Distributions that all install the package ``onnxruntime``: with two of them, the one that was
installed last is imported, and removing one breaks the other."""


def runtime_fault(pool: str) -> str:
    """Say what is wrong with the installed ONNX Runtime for a pool; empty if nothing is."""
    found = [name for name in _RUNTIMES if _is_installed(name)]
    fits = "onnxruntime-gpu" if pool == GPU else "onnxruntime"
    if found == [fits]:
        return ""
    extra = GPU if pool == GPU else CPU
    return (
        f"pool '{pool}': the installed ONNX Runtime does not fit (expected {fits} alone, got "
        f"{' and '.join(found) or 'none'}). Make a new environment with the extra '{extra}': "
        f"pip install -r requirements/{extra}.txt"
    )


def main(arguments: list[str] | None = None) -> int:
    """Start the worker; return the exit code when it has ended."""
    options = _options(arguments)
    if fault := runtime_fault(options.pool):
        sys.stderr.write(f"{fault}\n")
        if gpu_settings().require_runtime:
            return 1
    try:
        anyio.run(_work, options)
    except StackError as error:
        sys.stderr.write(f"{platform.node()}: {error}\n")
        return 1
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deployments.worker", description=__doc__)
    parser.add_argument("--pool", required=True, choices=[CPU, GPU])
    parser.add_argument(
        "--name", help="in the UI; absent: the host's, with its queues and process, or its GPUs"
    )
    parser.add_argument(
        "--work-queue",
        action="append",
        help=f"of the pool, may be repeated (default: {_QUEUE}, which has no catalogue runs)",
    )
    parser.add_argument("--limit", type=int, help="runs at the same time; on a GPU pool: GPUs")
    parser.add_argument(
        "--grace",
        type=float,
        default=_GRACE_SECONDS,
        help="seconds that its runs may go on once it is told to stop (default: %(default)g)",
    )
    parser.add_argument("--with-healthcheck", action="store_true", help="serve port 8080: /health")
    return parser.parse_args(arguments)


async def _work(options: argparse.Namespace) -> None:
    # here, since Prefect takes a second that a refusal need not wait for
    from prefect.settings import get_current_settings

    from deployments.draining import DrainingWorker, work
    from deployments.gpu_worker import GpuWorker, answering_health, claim_gpus

    # never all of them: a catalogue run would hold a place that it waits for its models to get
    queues = options.work_queue or [_QUEUE]
    common: dict[str, Any] = {
        "name": options.name or _own_name(queues),
        "work_pool_name": options.pool,
        "work_queues": queues,
        "prefetch_seconds": get_current_settings().worker.prefetch_seconds,
        "heartbeat_interval_seconds": int(get_current_settings().worker.heartbeat_seconds),
        "create_pool_if_not_found": False,
    }
    worker: DrainingWorker
    if options.pool == GPU:
        with answering_health() if options.with_healthcheck else nullcontext():
            claims = claim_gpus(options.limit, lambda words: print(words, flush=True))  # noqa: T201
        if options.name is None:
            common["name"] = "-".join([platform.node(), *(each.gpu[:12] for each in claims)])
        worker = GpuWorker(claims=claims, **common)
    else:
        worker = DrainingWorker(limit=options.limit, **common)
    await work(worker, options.grace, healthcheck=options.with_healthcheck)


def _own_name(queues: Sequence[str]) -> str:
    """Return a name that no other worker of this host has; of one name, two would be one worker."""
    return "-".join([platform.node(), *queues, str(os.getpid())])


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
