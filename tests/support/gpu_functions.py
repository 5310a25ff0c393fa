"""Stages for GPU workers that need no GPU: they tell where they ran, and how they were treated."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tasks.domain import errors
from tasks.domain.artifact import StoredTree
from tasks.domain.value import Value
from tasks.remote import gpu_stage
from tasks.runtime import workshop


class StayRequest(Value):
    """How long to stay, and who asks."""

    seconds: float
    who: int = 0
    meet: Path | None = None
    """Where to leave a mark, and to stay until there are two."""


class Stayed(Value):
    """Where and when."""

    gpu: str
    worker: str
    began: float
    ended: float


class FailRequest(Value):
    """What to raise."""

    kind: str
    message: str


class DieRequest(Value):
    """A file by which the second one knows that it is not the first."""

    marker: Path


class UpperRequest(Value):
    """Files in lower case."""

    tree: StoredTree


class Uppered(Value):
    """The same in upper case, and the request's own."""

    tree: StoredTree
    given: StoredTree


@gpu_stage
def stay(request: StayRequest) -> Stayed:
    """Stay for a while."""
    began = time.time()
    if request.meet:
        (request.meet / str(request.who)).touch()
        while len(list(request.meet.iterdir())) < 2 and time.time() - began < 60:
            time.sleep(0.05)
    time.sleep(request.seconds)
    gpu, worker = os.environ["CUDA_VISIBLE_DEVICES"], os.environ["PREFECT__WORKER_NAME"]
    return Stayed(gpu=gpu, worker=worker, began=began, ended=time.time())


@gpu_stage
def fail(request: FailRequest) -> Stayed:
    """Raise what is asked for."""
    kind = getattr(errors, request.kind, None) or KeyError
    raise kind(request.message)


@gpu_stage
def stay_unless_marked(request: DieRequest) -> Stayed:
    """Stay for ever, but not the second one, which finds the first one's mark."""
    if not request.marker.exists():
        request.marker.touch()
        time.sleep(3600)
    gpu, worker = os.environ["CUDA_VISIBLE_DEVICES"], os.environ["PREFECT__WORKER_NAME"]
    return Stayed(gpu=gpu, worker=worker, began=0, ended=0)


@gpu_stage
def die_once(request: DieRequest) -> Stayed:
    """Die as a power cut would have it, but not twice."""
    if not request.marker.exists():
        request.marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Stayed(gpu="", worker="", began=0, ended=0)


@gpu_stage
def upper(request: UpperRequest) -> Uppered:
    """Write each file anew, in upper case."""
    shop = workshop()
    given, made = shop.fetch(request.tree), shop.new_folder("upper")
    for file in request.tree.files:
        path = request.tree.path_of(file)
        (made / path).parent.mkdir(exist_ok=True)
        (made / path).write_text((given / path).read_text().upper())
    return Uppered(tree=shop.keep(made, "upper"), given=request.tree)
