"""A TCP proxy on loopback that cuts every connection once it has passed on enough."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit


@dataclass
class CuttingProxy:
    """Passes bytes on to ``target`` until ``up_bytes`` went there, or ``down_bytes`` came back."""

    target: str
    up_bytes: int | None = None
    down_bytes: int | None = None
    cuts: int = 1_000_000
    """How many connections are cut; those after them live."""
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        there = urlsplit(self.target)
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((str(there.hostname), int(there.port or 80)))
                pairs = (("up", client, server), ("down", server, client))
                for pair in pairs:
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, way: str, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(65_536):
                if self._must_cut(way, len(block)):
                    break
                sink.sendall(block)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _must_cut(self, way: str, size: int) -> bool:
        limit = self.up_bytes if way == "up" else self.down_bytes
        with self._lock:
            self.passed[way] += size
            if limit is None or self.passed[way] <= limit or self.cuts == 0:
                return False
            self.cuts -= 1
            return True
