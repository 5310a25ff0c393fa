"""``https:`` and ``http:``."""

from __future__ import annotations

import re
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import certifi
import httpx

from tasks.domain.errors import AcquisitionError, ConfigurationError
from tasks.fetch import transfer as transfers
from tasks.fetch.transfer import BrokenTransferError, NotResumableError, Stream, Wanted
from tasks.fetch.wording import out_of_reach, redacted

if TYPE_CHECKING:
    from collections.abc import Iterator

_OVERLOADED = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Route:
    """The way to a server, where it is not the usual one."""

    ca_file: str | None = None
    proxy: str | None = None
    trusted: bool = False
    """Whether the server may show any certificate."""


def open_client(route: Route = Route()) -> httpx.Client:
    """Return a client that trusts the system's authorities, certifi's and the route's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if route.ca_file:
        context.load_verify_locations(route.ca_file)
    if route.trusted:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    patience = transfers.PATIENCE
    return httpx.Client(
        verify=context,
        proxy=route.proxy,
        follow_redirects=True,
        timeout=httpx.Timeout(patience.read_seconds, connect=patience.connect_seconds),
        headers={"User-Agent": "onnx-conveyor", "Accept-Encoding": "identity"},
    )


def download(wanted: Wanted, route: Route = Route()) -> None:
    """Bring ``wanted`` to its part.

    Raises:
        AcquisitionError: The server is out of reach, refuses, or has something else there.
    """
    with open_client(route) as client:
        transfers.transfer(wanted, _Server(client, wanted).open)


@dataclass
class _Server:
    """A server, and whether it has answered yet: only then is a lost connection a passing one."""

    client: httpx.Client
    wanted: Wanted
    answered: bool = field(default=False)

    @contextmanager
    def open(self, offset: int, tag: str | None) -> Iterator[Stream]:
        """Ask for the bytes from ``offset`` on, if the server's file is still ``tag``."""
        headers = {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if tag and not tag.startswith("W/"):  # RFC 9110, 13.1.5: If-Range needs a strong one
                headers["If-Range"] = tag
        request = self.client.stream("GET", self.wanted.uri, headers=headers)
        with self._faults_in_words(), request as response:
            self.answered = True
            _refuse(self.wanted, response)
            yield _as_stream(response, offset, tag)

    @contextmanager
    def _faults_in_words(self) -> Iterator[None]:
        """Turn the client's errors into ours: final ones, and those worth another try."""
        uri = redacted(self.wanted.uri)
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            if self.answered:
                raise BrokenTransferError(str(error)) from error
            if "CERTIFICATE" in str(error):
                message = (
                    f"{uri}: the server's certificate is not trusted ({error}). Behind a proxy "
                    "that re-signs traffic, set SSL_CERT_FILE to its certificate."
                )
                raise AcquisitionError(message) from error
            whom = f"'{httpx.URL(self.wanted.uri).host}'"
            reason = str(error) or "no answer in time"
            raise AcquisitionError(out_of_reach(self.wanted, whom, reason)) from error
        except httpx.TransportError as error:
            reason = str(error) or "silence for too long"
            raise BrokenTransferError(reason) from error
        except httpx.InvalidURL as error:
            message = f"{uri}: not an address ({error}). Mend the recipe's uri."
            raise ConfigurationError(message) from error
        except httpx.HTTPError as error:
            message = f"{uri}: cannot be downloaded ({error}). Check the uri in a browser."
            raise AcquisitionError(message) from error


def _refuse(wanted: Wanted, response: httpx.Response) -> None:
    """Raise unless the answer is the file, or the rest of it."""
    status, uri = response.status_code, redacted(wanted.uri)
    said = f"{status} {response.reason_phrase}".strip()
    if status in _OVERLOADED:
        raise BrokenTransferError(f"the server answered {said}")
    if (
        status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE
        and "Range" in response.request.headers
    ):
        raise NotResumableError
    if status in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
        message = f"{uri}: is not there (the server answered {said}). Check the recipe's uri."
        raise AcquisitionError(message)
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        message = (
            f"{uri}: the server does not hand it out (it answered {said}). It may need a login, "
            "or a proxy stands between: download it by hand and use a file:// uri."
        )
        raise AcquisitionError(message)
    if not response.is_success:
        message = f"{uri}: the server answered {said} instead of a file. Check the recipe's uri."
        raise AcquisitionError(message)
    _refuse_html(uri, response)


def _refuse_html(uri: str, response: httpx.Response) -> None:
    kind = response.headers.get("Content-Type", "")
    asked_for = PurePosixPath(response.request.url.path).suffix.lower() in {".html", ".htm"}
    if kind.startswith("text/html") and not asked_for:
        message = (
            f"{uri}: the server answered with a web page (content type {kind}) instead of a file: "
            "a login, a notice or a preview. Use the address of the file itself."
        )
        raise AcquisitionError(message)


def _as_stream(response: httpx.Response, offset: int, tag: str | None) -> Stream:
    new_tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
    length = response.headers.get("Content-Length")
    start, total = 0, int(length) if length else None
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != offset or (tag and new_tag and tag != new_tag):
            raise NotResumableError
        start, total = offset, None if found[2] == "*" else int(found[2])
    return Stream(start, total, new_tag, response.iter_raw())
