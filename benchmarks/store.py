"""Upload and read back a large file, against ``aws s3 cp`` on the same server.

    python benchmarks/store.py [--megabytes 500] [--rounds 6]

Rounds are interleaved and take turns in who begins, so that a neighbour's load falls on both:
choose an even number. The client's own start-up is
taken from ``aws`` (the time it needs for an empty file), not from us: our clock runs in a
process that has long been up. ``aws s3 cp`` compares no SHA-256 on its way down; we always do.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prefect  # noqa: F401 - it is part of the parent process whose memory is measured

from deployments.s3_server import S3Server
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

_MIB = 1024 * 1024


class Aws:
    """The command line of the ``awscli`` package."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._environment = os.environ | {
            "AWS_ACCESS_KEY_ID": server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def copy(self, source: Path | str, target: Path | str) -> None:
        """Run ``aws s3 cp``."""
        aws = Path(sys.executable).with_name("aws")
        command = [str(aws), "--endpoint-url", self._server.endpoint, "s3", "cp", "--quiet"]
        command += [str(source), str(target)]
        subprocess.run(command, check=True, env=self._environment)

    def url(self, key: str) -> str:
        """Return ``s3://bucket/key``."""
        return f"s3://{self._server.bucket}/{key}"


def main() -> None:
    """Measure, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=None, help="where the files go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        _write_random(folder / "file", options.megabytes)
        with S3Server(folder / "server", grace_seconds=0) as server:
            seconds = _measure(server, folder, options.rounds)
    _report(seconds, options.megabytes)


def _measure(server: S3Server, folder: Path, rounds: int) -> dict[str, list[float]]:
    store, aws = open_store(server.settings), Aws(server)
    (folder / "empty").touch()
    seconds: dict[str, list[float]] = {}

    def timed(what: str, action: Callable[..., object], *arguments: object) -> None:
        os.sync()  # nobody pays for what the turn before has left to the disk
        begun = time.perf_counter()
        action(*arguments)
        seconds.setdefault(what, []).append(time.perf_counter() - begun)

    file = store.put(folder / "file", "warm-up")  # the server lays out its disk
    for number in range(rounds):
        theirs, ours = aws.url(f"{number}/theirs"), f"{number}/ours"
        stored = file.model_copy(update={"key": ours})
        timed("start-up of aws", aws.copy, folder / "empty", f"{theirs}-empty")
        uploads: list[tuple[Any, ...]] = [
            ("aws up", aws.copy, folder / "file", theirs),
            ("our up", store.put, folder / "file", ours),
        ]
        downloads: list[tuple[Any, ...]] = [
            ("aws down", aws.copy, theirs, folder / "theirs"),
            ("our check", store.check, stored),
            ("our down", store.get, stored, folder / "ours"),
        ]
        for turns in (uploads, downloads):
            for turn in turns if number % 2 else reversed(turns):
                timed(*turn)
        store.remove(f"{number}/")
    return seconds


def _report(seconds: dict[str, list[float]], megabytes: int) -> None:
    median = {what: statistics.median(values) for what, values in seconds.items()}
    start = median.pop("start-up of aws")
    print(f"{megabytes} MiB; aws needs {start:.2f} s to start, which is not counted below\n")
    print(f"{'':10}  {'median':>8}  {'MiB/s':>6}  all rounds")
    net = {what: value - start * what.startswith("aws") for what, value in median.items()}
    for what, value in net.items():
        rounds = " ".join(f"{each - start * what.startswith('aws'):.2f}" for each in seconds[what])
        print(f"{what:10}  {value:7.2f}s  {megabytes / value:6.0f}  {rounds}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nupload:              {net['aws up'] / net['our up']:.2f} x aws s3 cp (target 0.9)")
    print(f"read-back and hash:  {net['aws down'] / net['our check']:.2f} x aws s3 cp (target 0.9)")
    print(f"download and hash:   {net['aws down'] / net['our down']:.2f} x aws s3 cp")
    print(f"peak memory:         {peak:.0f} MiB with Prefect and boto3 (target below 300)")


def _write_random(path: Path, megabytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(_MIB))


if __name__ == "__main__":
    main()
