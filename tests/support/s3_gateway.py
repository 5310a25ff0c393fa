"""An HTTP proxy before an S3 server that changes requests, or answers some of them itself.

It signs what it passes on with credentials of its own, as a gateway of another make would, so
that a header can be missing without the signature being wrong. Bodies are passed on as they are.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from tasks.settings import StoreSettings

_OWN = frozenset({"authorization", "connection", "content-length", "expect", "host"})


class Request(NamedTuple):
    """What a client asks, without its body."""

    method: str
    path: str
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """An error, as S3 words it."""

    status: int
    code: str


Change = Callable[[Request], "Answer | frozenset[str]"]
"""Answers a request, or names the headers (in lower case) to leave out of it."""


@dataclass
class S3Gateway:
    """Passes requests on to a server, after ``change`` had its say."""

    server: StoreSettings
    change: Change
    seen: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        gateway = self

        class Handler(_Handler):
            def handle_any(self) -> None:
                self.pass_on(gateway)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def settings(self) -> StoreSettings:
        """The settings by which ``open_store`` reaches the server through this gateway."""
        address = f"http://127.0.0.1:{self._http.server_address[1]}"
        return self.server.model_copy(update={"endpoint": address})

    def signed(self, request: Request, dropped: frozenset[str]) -> dict[str, str]:
        """Return the headers of a request to the server."""
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _OWN | dropped
        }
        secret = self.server.secret_access_key
        assert secret is not None
        credentials = Credentials(str(self.server.access_key_id), secret.get_secret_value())
        url = f"{self.server.endpoint}{request.path}"
        aws = AWSRequest(method=request.method, url=url, headers=headers)
        aws.context["payload_signing_enabled"] = False
        S3SigV4Auth(credentials, "s3", self.server.region).add_auth(aws)
        return dict(aws.headers.items())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def pass_on(self, gateway: S3Gateway) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, dict(self.headers.items()))
        gateway.seen.append(request)
        change = gateway.change(request)
        if isinstance(change, Answer):
            self._answer(change.status, {"Content-Type": "application/xml"}, _xml(change))
            return
        there = urlsplit(str(gateway.server.endpoint))
        connection = http.client.HTTPConnection(str(there.hostname), there.port)
        try:
            connection.request(self.command, self.path, body, gateway.signed(request, change))
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if not _hops(name)}
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self._answer(answer.status, headers, answer.read(), length)
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: Mapping[str, str], body: bytes, length: Any = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _hops(name: str) -> bool:
    return name.lower() in {"connection", "content-length", "transfer-encoding", "keep-alive"}


def _xml(answer: Answer) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{answer.code}</Code>'
        f"<Message>said by a test</Message></Error>"
    ).encode()
