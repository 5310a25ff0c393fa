"""A worker that lends each of its runs one GPU of this host."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prefect.settings import get_current_settings

from deployments.draining import DrainingWorker
from deployments.processes import StackError
from tasks.gpus import GpuClaim, claim, host_gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anyio.abc import TaskStatus
    from prefect.client.schemas.objects import FlowRun
    from prefect.workers.process import ProcessJobConfiguration, ProcessWorkerResult

_BETWEEN_LOOKS_SECONDS = 2.0


class GpuWorker(DrainingWorker):
    """It has as many places as it has claimed GPUs; each run sees the one that it is lent."""

    type = "process-gpu"

    def __init__(self, *arguments: Any, claims: Sequence[GpuClaim], **options: Any) -> None:  # noqa: ANN401 - Prefect's own
        super().__init__(*arguments, limit=len(claims), **options)
        self._free = list(claims)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Run ``flow_run`` in a process that sees one GPU, which no other run has."""
        lent = self._free.pop(0)  # there is one: there are as many places as GPUs
        try:
            configuration.env.update(lent.environment())
            self.get_flow_run_logger(flow_run).info(
                "Worker '%s' lends it GPU %s", self.name, lent.gpu
            )
            return await super().run(flow_run, configuration, task_status)
        finally:
            self._free.append(lent)


GpuWorker.type = DrainingWorker.type


def claim_gpus(most: int | None, say: Callable[[str], None]) -> list[GpuClaim]:
    """Claim the GPUs of this host that no other worker has; wait until there is one.

    Args:
        most: How many to take; absent: all.
        say: Is told, once, that all are taken.

    Raises:
        StackError: This host has no GPU.
    """
    gpus = host_gpus()
    if not gpus:
        message = (
            "this host shows no GPU (nvidia-smi, CUDA_VISIBLE_DEVICES). Start the GPU worker on "
            "one that does, or name its GPUs: CONVEYOR_GPU_DEVICES='[\"0\"]'."
        )
        raise StackError(message)
    said = False
    while True:
        claims: list[GpuClaim] = []
        for gpu in gpus:
            if most is not None and len(claims) >= most:
                break
            if taken := claim(gpu):
                claims.append(taken)
        if claims:
            return claims
        if not said:
            say(f"waiting: other workers of this host, or their runs, have {', '.join(gpus)}")
            said = True
        time.sleep(_BETWEEN_LOOKS_SECONDS)


@contextmanager
def answering_health() -> Iterator[None]:
    """Answer ``/health`` where Prefect's worker will, until it does.

    A worker that waits for a GPU is well: who is asked for health and says nothing is taken for one
    that did not come up, and is killed, or ends the start of all others.
    """
    place = get_current_settings().worker.webserver
    with ThreadingHTTPServer((place.host, place.port), _Well) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


class _Well(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"message": "waiting for a GPU"}')

    def log_message(self, *_: object) -> None:
        """Write nothing."""
