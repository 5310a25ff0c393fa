"""The door to child processes: a framework runs on its other side, and can die there alone.

A call names an ordinary function of one request value; the child imports it and runs it.
A child is kept warm for the next call of its family, since importing a framework costs
seconds. Whatever ends a child early (a signal, the kernel's out-of-memory killer, a limit)
comes back as one typed error that says stage, model, signal, peak memory and last words.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, get_type_hints

import psutil

from tasks.child import MUCH_MB
from tasks.domain import errors
from tasks.domain.artifact import Cost
from tasks.domain.errors import (
    ChildCrashedError,
    IsolationError,
    MemoryLimitError,
    ReleaseError,
    TimeLimitError,
)
from tasks.domain.recipe import Limits
from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import IO

Request = TypeVar("Request", bound=Value)
Answer = TypeVar("Answer", bound=Value)

_TICK_SECONDS = 0.1
_LAST_LINES = 12
_LEAST_FREE_BYTES = 4096
_MIB = 1024 * 1024
_USUAL_LIMITS = Limits()


class Family(StrEnum):
    """What may be imported together in one process."""

    LIGHT = "light"
    """numpy and Pillow, no framework."""
    SKLEARN = "sklearn"
    TORCH = "torch"
    TENSORFLOW = "tensorflow"
    TENSORFLOW_LEGACY = "tensorflow-legacy"
    """TensorFlow with Keras 2, which onnx-tf and old SavedModels need."""
    ONNXRUNTIME = "onnxruntime"


_ENVIRONMENT = {
    Family.TENSORFLOW: {"TF_CPP_MIN_LOG_LEVEL": "2"},
    Family.TENSORFLOW_LEGACY: {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_USE_LEGACY_KERAS": "1"},
}


@dataclass(frozen=True)
class Call:
    """In whose name a child works, and what it may take."""

    stage: str
    """Such as ``export (torch-dynamo)``; the first words of an error."""
    model: str
    family: Family
    limits: Limits = _USUAL_LIMITS
    fails_as: type[ReleaseError] = IsolationError
    """What an exception of a framework becomes on this side."""
    on_progress: Callable[[float, str], None] | None = None

    def __str__(self) -> str:
        """Write the place of an error: ``model: stage``."""
        return f"{self.model}: {self.stage}"


@dataclass(frozen=True)
class Answered(Generic[Answer]):
    """What a child answered, and what that took."""

    value: Answer
    cost: Cost


class _Child:
    """One process, and the pipe to it."""

    def __init__(self, family: Family, log: Path) -> None:
        self.log = log
        # a killed child cleans nothing away, so what it writes goes where its owner does
        own = {"PYTHONUNBUFFERED": "1", "TMPDIR": str(log.parent)}
        environment = os.environ | _ENVIRONMENT.get(family, {}) | own
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tasks.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,  # so that its own children can be ended with it
            )
        self.stdin = cast("IO[bytes]", self.process.stdin)
        self.stdout = cast("IO[bytes]", self.process.stdout)
        self.prepares = False
        """Whether its next reply is to a preparation, which nobody waits for."""

    def ask(self, function: Callable[..., Value], request: Value) -> None:
        """Send one request; the reply is to be read from ``stdout``."""
        line = {
            "function": f"{function.__module__}:{function.__qualname__}",
            "request": request.model_dump_json(),
        }
        self.stdin.write(json.dumps(line).encode() + b"\n")
        self.stdin.flush()

    def memory_mb(self) -> float:
        """Return the resident size of the process and its descendants, in MiB."""
        total = 0
        with suppress(psutil.Error):
            root = psutil.Process(self.process.pid)
            for each in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    total += each.memory_info().rss
        return total / _MIB

    def end(self, *, grace_seconds: float = 0.0) -> None:
        """Close the pipe, which ends an idle child; then kill what is left of its session."""
        with suppress(OSError):
            self.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_seconds)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.stdout.close()

    def last_words(self, since: int) -> str:
        """Return the last lines written to the log since it had ``since`` bytes."""
        with self.log.open("rb") as file:
            file.seek(max(since, self.log.stat().st_size - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(f"  | {line[:300]}" for line in lines[-_LAST_LINES:])


class Children:
    """The child processes of one run: at most one of each family at a time, kept warm.

    Calls of one family wait for each other; calls of different families run side by side.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._warm: dict[Family, _Child] = {}
        self._locks: defaultdict[Family, threading.Lock] = defaultdict(threading.Lock)

    def __enter__(self) -> Self:
        """Start nothing yet: a child starts with its first call."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every child."""
        self.close()

    def close(self) -> None:
        """End every child; a call under way fails."""
        while self._warm:
            self._warm.popitem()[1].end(grace_seconds=0.5)

    def retire(self, family: Family) -> None:
        """End the warm child of ``family``, so that its memory is free and the next starts new."""
        with self._locks[family]:
            if child := self._warm.pop(family, None):
                child.end(grace_seconds=0.5)

    def prepare(
        self, function: Callable[[Request], Value], request: Request, family: Family
    ) -> None:
        """Start ``function(request)`` in a new child, such as its imports; do not wait for it.

        A later call waits for what is left of it. What goes wrong is that call's to meet and
        to say. Where the child is up already, there is nothing to prepare.
        """
        with self._locks[family], suppress(BrokenPipeError):
            if family not in self._warm:
                child = self._child_of(family)
                child.prepares = True
                child.ask(function, request)

    def _child_of(self, family: Family) -> _Child:
        child = self._warm.get(family)
        if child is None or child.process.poll() is not None:
            child = self._warm[family] = _Child(family, self._folder / f"{family}.log")
        return child

    def call(
        self, function: Callable[[Request], Answer], request: Request, call: Call
    ) -> Answered[Answer]:
        """Run ``function(request)`` in a child process and wait for its answer.

        Args:
            function: A module-level function whose parameter is called ``request``. Its
                module must be importable without any framework; it imports its own inside.
            request: What the function gets, sent as JSON.
            call: In whose name, in which family, and within which limits.

        Raises:
            ReleaseError: As the function raised it, or ``call.fails_as`` for anything else
                that it raised.
            ChildCrashedError: The process died of a signal, or left without an answer.
            MemoryLimitError: It took more than ``call.limits.memory_mb``.
            TimeLimitError: It took longer than ``call.limits.timeout_seconds``.
        """
        with self._locks[call.family]:
            child = self._child_of(call.family)
            try:
                reply, cost = _Conversation(child, call).exchange(function, request)
            except BaseException:
                self._warm.pop(call.family, None)
                child.end()
                raise
            if reply["kept_mb"] > MUCH_MB:
                self._warm.pop(call.family, None)
                child.end(grace_seconds=0.5)
        if "error" in reply:
            kind = getattr(errors, reply["error"] or "-", None)
            if kind is None:
                raise call.fails_as(f"{call}: {_shortened(reply['message'])}")
            raise cast("type[ReleaseError]", kind)(reply["message"])
        answer_type = get_type_hints(function)["return"]
        return Answered(answer_type.model_validate_json(reply["answer"]), cost)


class _Conversation:
    """One call to one child: the wait for its answer, under the watch of its limits."""

    def __init__(self, child: _Child, call: Call) -> None:
        self._child = child
        self._call = call
        self._peak_mb = 0.0
        self._started = time.monotonic()
        self._log_start = 0 if child.prepares else child.log.stat().st_size
        self._oom_kills = _oom_kills()

    def exchange(
        self, function: Callable[[Request], Answer], request: Request
    ) -> tuple[dict[str, Any], Cost]:
        try:
            self._child.ask(function, request)
        except BrokenPipeError:
            raise self._crash() from None
        for message in self._messages():
            if self._child.prepares:
                # if it failed, so will the call, and say why in whose name
                self._child.prepares = "progress" in message
                continue
            if "progress" in message:
                if self._call.on_progress:
                    self._call.on_progress(message["progress"], message["text"])
                continue
            peak = max(self._peak_mb, message["peak_mb"])
            return message, Cost(seconds=self._seconds, peak_mb=round(peak, 1))
        raise self._crash()

    def _messages(self) -> Iterator[dict[str, Any]]:
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while True:
                self._watch()
                if not selector.select(_TICK_SECONDS):
                    continue
                chunk = os.read(self._child.stdout.fileno(), 65_536)
                if not chunk:
                    return
                *lines, buffer = (buffer + chunk).split(b"\n")
                yield from map(json.loads, lines)

    @property
    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)

    def _watch(self) -> None:
        limits = self._call.limits
        self._peak_mb = max(self._peak_mb, self._child.memory_mb())
        if self._peak_mb > limits.memory_mb:
            message = (
                f"{self._call}: took {self._peak_mb:,.0f} MiB, more than its limit of "
                f"{limits.memory_mb:,} MiB. Raise limits.memory_mb in the recipe, or use a "
                f"smaller model.{self._words()}"
            )
            raise MemoryLimitError(message)
        if self._seconds > limits.timeout_seconds:
            message = (
                f"{self._call}: no answer within its limit of {limits.timeout_seconds} s "
                f"(peak memory {self._peak_mb:,.0f} MiB). Raise limits.timeout_seconds in the "
                f"recipe if it only needs longer.{self._words()}"
            )
            raise TimeLimitError(message)

    def _crash(self) -> ReleaseError:
        code = self._child.process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        where = f"{self._call}: the child process ended by {how} without an answer "
        after = f"after {self._seconds:.1f} s at a peak of {self._peak_mb:,.0f} MiB"
        if code == -signal.SIGKILL and _oom_kills() > self._oom_kills:
            message = f"{where}{after}: the kernel killed it, out of memory.{self._words()}"
            return MemoryLimitError(message)
        return ChildCrashedError(f"{where}{after}.{self._words()}")

    def _words(self) -> str:
        if shutil.disk_usage(self._child.log.parent).free < _LEAST_FREE_BYTES:
            return f" No space left on device: {self._child.log.parent} is full. Make room there."
        words = self._child.last_words(self._log_start)
        return f" Its last lines:\n{words}" if words else " It wrote nothing."


def _oom_kills() -> int:
    """Return how many processes the kernel has killed for memory since it booted."""
    with suppress(OSError), Path("/proc/vmstat").open() as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _shortened(text: str, limit: int = 2_000) -> str:
    return text if len(text) <= limit else f"{text[:limit]} …"
