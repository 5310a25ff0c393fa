"""What tests let a child process do, most of it bad."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

from tasks.child import report_progress
from tasks.domain.errors import VerificationError
from tasks.domain.value import Value


class Number(Value):
    """The request and the answer of most functions here."""

    value: int


class Report(Value):
    """What a child tells of its surroundings."""

    pid: int
    environment: dict[str, str]


def double(request: Number) -> Number:
    """Do what is asked, with a word in between."""
    report_progress(0.5, "half")
    return Number(value=2 * request.value)


def tell(request: Number) -> Report:
    """Say who and where this process is."""
    del request
    return Report(pid=os.getpid(), environment=dict(os.environ))


def remember(request: Number) -> Number:
    """Keep a number in this process, as an import keeps a module."""
    report_progress(0.5, "half")
    os.environ["REMEMBERED"] = str(request.value)
    return request


def raise_foreign(request: Number) -> Number:
    """Fail as a framework does."""
    raise KeyError(request.value)


def raise_own(request: Number) -> Number:
    """Fail as this project does."""
    message = f"file {request.value}: torn. Fetch it again."
    raise VerificationError(message)


def die_of_segfault(request: Number) -> Number:
    """Read address zero, after a last word on standard output."""
    print("touching address zero", flush=True)  # noqa: T201
    ctypes.string_at(0)
    return request


def print_from_c(request: Number) -> Number:
    """Write to standard output behind Python's back; it must not reach the answers."""
    os.write(1, b'{"answer": "forged"}\n')
    return request


def leave(request: Number) -> Number:
    """End without an answer, as a library that calls ``exit`` does."""
    os._exit(request.value)


def hang(request: Number) -> Number:
    """Start a grandchild, tell its pid in a file, and never answer."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(os.environ["TEST_PID_FILE"]).write_text(f"{os.getpid()} {grandchild.pid}")
    print("waiting for what never comes", flush=True)  # noqa: T201
    time.sleep(600)
    return request


def allocate(request: Number) -> Number:
    """Fill ``value`` MiB and hold them for a moment."""
    print(f"taking {request.value} MiB", flush=True)  # noqa: T201
    block = bytearray(request.value * 1024 * 1024)
    time.sleep(0.5)
    return Number(value=len(block))


def write_much(request: Number) -> Number:
    """Write ``value`` MiB of words to the log, more than any pipe holds."""
    for _ in range(request.value):
        sys.stdout.write("x" * 1024 * 1024)
    return request


def hold_in_a_cycle(request: Number) -> Number:
    """Leave ``value`` MiB that only the garbage collector can free, as models do."""
    knot: list[object] = [bytearray(os.urandom(1)) * (request.value << 20)]
    knot.append(knot)
    return request


_kept: list[bytearray] = []


def keep_for_ever(request: Number) -> Report:
    """Keep ``value`` MiB in a table of the module, as libraries do; say who this is."""
    _kept.append(bytearray(b"x") * (request.value << 20))
    return tell(request)
