"""The inside of a child process: takes a function's name and its request, gives its answer.

Started by ``tasks.isolation`` as ``python -m tasks.child``. Requests come as JSON lines on
standard input; answers leave as JSON lines on what was standard output. Whatever the
function's libraries print, on either stream and from C too, goes to the log that the parent
gave as standard error.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, get_type_hints

from tasks.domain.errors import ReleaseError

if TYPE_CHECKING:
    from typing import TextIO

MUCH_MB = 2048
"""A child that keeps more than this after a call collects its garbage; if it then still keeps as
much, its parent ends it. Libraries keep models in tables of their own (measured: torch's tracer
and onnxscript's rules each keep the last one exported, weights and all)."""

_answers: TextIO | None = None


def report_progress(fraction: float, text: str = "") -> None:
    """Tell the parent how far the current call is; outside a child process, do nothing.

    Args:
        fraction: Between 0 and 1.
        text: What is being done, in a few words.
    """
    _send({"progress": min(1.0, max(0.0, fraction)), "text": text})


def _send(message: dict[str, Any]) -> None:
    if _answers is not None:
        _answers.write(json.dumps(message) + "\n")
        _answers.flush()


def _read_requests(requests: queue.SimpleQueue[str]) -> None:
    """Queue the request lines; once the parent is gone, end this process and its own children."""
    for line in sys.stdin:
        requests.put(line)
    os.killpg(0, signal.SIGKILL)


def _forget_peak_memory() -> None:
    try:
        with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123 - a kernel switch
            file.write("5")
    except OSError:
        return  # not Linux, or not allowed: the peak is then that of the process's whole life


def _memory_mb(kind: str) -> float:
    """Read a figure of the kernel's, in MiB: ``VmRSS`` is what is held now, ``VmHWM`` the peak."""
    with open("/proc/self/status") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _perform(line: str) -> dict[str, Any]:
    message = json.loads(line)
    try:
        module, name = message["function"].split(":")
        function = getattr(importlib.import_module(module), name)
        request = get_type_hints(function)["request"].model_validate_json(message["request"])
        answer = function(request)
        return {"answer": answer.model_dump_json()}
    except ReleaseError as error:
        traceback.print_exc()
        return {"error": type(error).__name__, "message": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever a framework raises goes home as words
        traceback.print_exc()
        return {"error": "", "message": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Serve requests, one at a time, until the parent closes the pipe."""
    global _answers  # noqa: PLW0603 - one process, one parent
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    while True:
        line = requests.get()
        _forget_peak_memory()
        reply = _perform(line)
        sys.stdout.flush()
        sys.stderr.flush()
        peak = _memory_mb("VmHWM")
        if _memory_mb("VmRSS") > MUCH_MB:
            gc.collect()  # a model is full of cycles, and else still there when the next one loads
        _send(reply | {"peak_mb": peak, "kept_mb": _memory_mb("VmRSS")})


if __name__ == "__main__":
    # The package's own module, not ``__main__``: steps import ``report_progress`` from it.
    from tasks.child import main as serve

    serve()
