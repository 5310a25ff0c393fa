# ruff: noqa: INP001 - a script that stands beside its data
"""Make the project's environment, ``.venv``, from the lock; do nothing if that was done.

    python3 requirements/install.py

Only the standard library, and no syntax newer than Python 3.7, so that a Python of the wrong
version can still say so.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = (3, 11)
DISK_GB = 12
"""8 GB of packages, and what pip unpacks beside them."""

APART = ("onnx2tf", "ministack")
"""What pins other versions of packages that we have, and so stands in a folder beside them."""

_LAST_LINES = 15


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> None:
    """Raise unless this is the Python that the lock was made for."""
    if version != WANTED:
        raise SetupError(
            f"Python {version[0]}.{version[1]} is not supported (expected {WANTED[0]}."
            f"{WANTED[1]}, for which the lock was made). Install python3.11 with its venv "
            "module, or say where it is: make PYTHON=/path/to/python3.11 …"
        )


def check_venv() -> None:
    """Raise unless environments can be made, which Debian packages apart."""
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        raise SetupError(
            f"{sys.executable}: has no 'venv' module. On Debian and Ubuntu: "
            "apt-get install python3.11-venv"
        ) from None


def check_disk(folder: Path, free_bytes: int, wanted_gb: float = DISK_GB) -> None:
    """Raise unless there is room for the packages."""
    if free_bytes < wanted_gb * 1e9:
        raise SetupError(
            f"{folder}: {free_bytes / 1e9:.1f} GB are free (expected {wanted_gb} GB: PyTorch "
            "and TensorFlow are large). Make room, then run it again."
        )


def fingerprint(root: Path) -> str:
    """Return a digest of all that the environment is made from."""
    digest = hashlib.sha256(f"{sys.version} {root}".encode())
    for name in (
        "pyproject.toml",
        "requirements/dev.txt",
        *(f"requirements/{a}.txt" for a in APART),
    ):
        path = root / name
        if path.exists():
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def steps(root: Path) -> list[tuple[str, list[str]]]:
    """Return what to do: words and a command each."""
    venv = root / ".venv"
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--progress-bar", "off"]
    pip += ["--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
    # a lock is whole; where pip looks for dependencies all the same, it takes "pydantic[email]"
    # of one package for another than the "pydantic" that the lock has
    locked = [*pip, "--no-deps", "--require-hashes", "-r"]
    found = [
        ("making .venv", [sys.executable, "-m", "venv", str(venv)]),
        ("installing the packages", [*locked, str(root / "requirements" / "dev.txt")]),
        ("installing this project", [*pip, "--no-deps", "--no-build-isolation", "-e", str(root)]),
    ]
    for name in APART:
        apart = root / "requirements" / f"{name}.txt"
        if apart.exists():
            target = ["--upgrade", "--target", str(venv / name)]
            found.append((f"installing {name}, apart", [*locked, str(apart), *target]))
    return found


def run(words: str, command: list[str], log: Path) -> None:
    """Run ``command`` with its output in ``log``, and show that time passes.

    Raises:
        SetupError: It failed; with its last lines.
    """
    began = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - the commands are those of ``steps``
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            while process.poll() is None:
                if sys.stdout.isatty():
                    _write(f"\r  {words} … {time.monotonic() - began:.0f} s ")
                time.sleep(0.1)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    _write(f"{chr(13) if sys.stdout.isatty() else ''}  {words}: ")
    _write(f"{time.monotonic() - began:.0f} s   \n")
    if process.returncode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = "\n".join(f"  | {line[:300]}" for line in lines[-_LAST_LINES:])
        code = process.returncode
        raise SetupError(f"{words}: failed (exit code {code}). The end of {log}:\n{last}")


def install(root: Path) -> None:
    """Bring ``.venv`` up to date, if it is not; one process at a time.

    Raises:
        SetupError: This machine lacks something, or a step failed.
    """
    holder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        stamp = root / ".venv" / "installed-from"
        if stamp.exists() and stamp.read_text() == fingerprint(root):
            return
        check_python()
        check_venv()
        if not stamp.exists():
            check_disk(root, shutil.disk_usage(root).free)
        _write("Setting up .venv: about 2 minutes and 8 GB, once.\n")
        stamp.parent.mkdir(exist_ok=True)
        log = stamp.with_name("install.log")
        log.write_bytes(b"")
        for words, command in steps(root):
            run(words, command, log)
        stamp.write_text(fingerprint(root))
    finally:
        os.close(holder)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        install(ROOT)
    except SetupError as error:
        sys.exit(f"set-up: {error}")
    except KeyboardInterrupt:
        sys.exit("set-up: stopped; the next run goes on from here.")
