"""A real HTTP server on loopback that misbehaves as it is told."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass
class Reply:
    """How one request is answered."""

    body: bytes
    status: int = 200
    kind: str = "application/octet-stream"
    etag: str | None = '"one"'
    ranges: bool = True
    says_length: bool = True
    cut: int | None = None
    """Bytes after which the connection is closed, or ``hold`` is waited for."""
    hold: threading.Event | None = None
    silence_seconds: float = 0


@dataclass
class FlakyServer:
    """Answers requests by ``plan``, one reply each; the last one again and again."""

    plan: list[Reply]
    requests: list[dict[str, str]] = field(default_factory=list)
    """The headers of each request so far."""

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"script": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        """What part each request asked for."""
        return [headers.get("Range") for headers in self.requests]

    def next_reply(self, headers: dict[str, str]) -> Reply:
        with self._lock:
            self.requests.append(headers)
            return self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]


class _Handler(BaseHTTPRequestHandler):
    script: FlakyServer

    def do_GET(self) -> None:
        reply = self.script.next_reply(dict(self.headers))
        time.sleep(reply.silence_seconds)
        with suppress(ConnectionError):
            self._send(reply)
        self.close_connection = True

    def _send(self, reply: Reply) -> None:
        start = self._start(reply)
        rest = reply.body[start:]
        self.send_response(206 if start else reply.status)
        self.send_header("Content-Type", reply.kind)
        if start:
            size = len(reply.body)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if reply.says_length:
            self.send_header("Content-Length", str(len(rest)))
        if reply.etag:
            self.send_header("ETag", reply.etag)
        self.end_headers()
        self.wfile.write(rest[: reply.cut])
        if reply.hold:
            self.wfile.flush()
            reply.hold.wait(20)
        elif reply.cut is not None:
            return
        self.wfile.write(rest[reply.cut or len(rest) :])

    def _start(self, reply: Reply) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in {None, reply.etag}
        return int(asked[1]) if asked and reply.ranges and same and reply.status == 200 else 0

    def log_message(self, *_: object) -> None:
        """Keep quiet."""
