"""One file over a network: goes on after a break, starts over where it cannot go on."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.domain.errors import AcquisitionError
from tasks.fetch.cache import discard, note_of
from tasks.fetch.wording import megabytes, redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tasks.domain.digest import Digest

    Opener = Callable[[int, str | None], AbstractContextManager["Stream"]]

_log = logging.getLogger(__name__)
_REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server."""

    connect_seconds: float = 10
    read_seconds: float = 30
    """Silence that counts as a broken connection."""
    tries: int = 4
    """Broken connections in a row that end it; one that brought ``progress_bytes`` is not one."""
    progress_bytes: int = 8_000_000
    pause_seconds: float = 0.5
    """Before the second try; doubled before each further one, give or take a half."""


PATIENCE = Patience()


@dataclass(frozen=True)
class Wanted:
    """A download that is under way."""

    uri: str
    digest: Digest
    part: Path
    """Where the bytes go."""
    cache: Path
    on_progress: Callable[[int, int | None], None] | None = None


@dataclass(frozen=True)
class Stream:
    """What a server sends."""

    start: int
    """Position of the first byte within the file; 0 where the server sends the whole file."""
    total: int | None
    """Size of the whole file."""
    tag: str | None
    """The server's name for this version of the file, such as an ETag."""
    chunks: Iterator[bytes]


class BrokenTransferError(Exception):
    """The connection broke or the server is overloaded: worth another try."""


class NotResumableError(Exception):
    """What is here does not go together with what the server has: start over."""


class _Part:
    """The bytes that have come, with their running digest and the server's tag for them."""

    def __init__(self, wanted: Wanted) -> None:
        self._path, self._uri = wanted.part, wanted.uri
        self._note = note_of(wanted.part)
        self._wanted = wanted.digest
        self._running = wanted.digest.hasher()
        self.size = 0
        self.tag: str | None = None
        self.total: int | None = None
        if self._path.is_file() and self._note.is_file():
            self._resume()
        if not self.size:
            discard(self._path)

    def _resume(self) -> None:
        try:
            note = json.loads(self._note.read_text())
        except ValueError:
            return
        if note["uri"] != self._uri:
            return
        self.tag, self.size = note["tag"], self._path.stat().st_size
        with self._path.open("rb") as file:
            self._running = hashlib.file_digest(file, self._wanted.hasher)

    @property
    def is_what_is_wanted(self) -> bool:
        return self._running.hexdigest() == self._wanted.hexadecimal

    def discard(self) -> None:
        discard(self._path)
        self._running, self.size, self.tag = self._wanted.hasher(), 0, None

    def pour(self, stream: Stream, report: Callable[[int, int | None], None]) -> None:
        if stream.start == 0:
            self.discard()
            self.tag = stream.tag
            self._note.write_text(json.dumps({"uri": self._uri, "tag": stream.tag}))
        self.total = stream.total
        with self._path.open("ab") as file:
            for chunk in stream.chunks:
                file.write(chunk)
                self._running.update(chunk)
                self.size += len(chunk)
                report(self.size, stream.total)


def transfer(wanted: Wanted, open_stream: Opener) -> None:
    """Bring ``wanted`` to its part, going on from what an earlier try left there.

    The result is whole as far as the server told; the caller checks its digest. A resumed file
    whose digest is wrong is fetched once more from its start before it is believed.

    Args:
        wanted: What to bring, and where to.
        open_stream: Asks the server for the bytes from a position on, given the tag of what is
            here. Raises ``BrokenTransferError`` (also while its stream is read) where another
            try may help, ``NotResumableError`` where only a fresh start does.

    Raises:
        AcquisitionError: The connection broke too often; what came is kept for the next call.
    """
    part, report = _Part(wanted), _throttled(wanted.on_progress)
    failures, fresh_starts = 0, 0
    while not part.is_what_is_wanted:
        before = part.size
        try:
            with open_stream(before, part.tag) as stream:
                part.pour(stream, report)
        except BrokenTransferError as error:
            progress = part.size - before >= PATIENCE.progress_bytes
            failures = 1 if progress else failures + 1
            _pause_or_give_up(wanted, part, failures, error)
        except NotResumableError:
            fresh_starts = _start_over(wanted, part, fresh_starts)
        else:
            if fresh_starts or not stream.start or part.is_what_is_wanted:
                break
            fresh_starts = _start_over(wanted, part, fresh_starts)
    if wanted.on_progress:
        wanted.on_progress(part.size, part.size)


def _start_over(wanted: Wanted, part: _Part, before: int) -> int:
    """Throw away what is here; return how often that was done."""
    uri = redacted(wanted.uri)
    if before >= PATIENCE.tries:
        message = (
            f"{uri}: changed on the server {before} times while it was fetched. "
            "Use an address that stands for one file."
        )
        raise AcquisitionError(message)
    _log.warning("%s: what is here does not fit what the server has; from the start", uri)
    part.discard()
    return before + 1


def _pause_or_give_up(wanted: Wanted, part: _Part, failures: int, error: Exception) -> None:
    reason = redacted(str(error))
    if failures >= PATIENCE.tries:
        of = f" of {megabytes(part.total)}" if part.total else ""
        message = (
            f"{redacted(wanted.uri)}: the transfer broke {failures} times in a row ({reason}). "
            f"{megabytes(part.size)}{of} are here and kept; run again to go on from there."
        )
        raise AcquisitionError(message) from error
    _log.warning("%s: the transfer broke (%s); trying again", redacted(wanted.uri), reason)
    pause = PATIENCE.pause_seconds * 2 ** (failures - 1)
    time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not cryptography


def _throttled(
    report: Callable[[int, int | None], None] | None,
) -> Callable[[int, int | None], None]:
    """Pass on a report only every so often."""
    last = 0.0

    def throttled(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if report and now - last >= _REPORT_SECONDS:
            last = now
            report(done, total)

    return throttled
