"""Another implementation of S3 than SeaweedFS: MiniStack, which keeps its objects in memory.

It shows that the store's contract is not one server's habits. It is no proof of durability.
Its package pins its own botocore, so ``requirements/install.py`` installs it apart.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from deployments.processes import Leashed, free_port, wait_until_healthy
from tasks.settings import StoreSettings
from tasks.storage.s3 import open_store

FOLDER = Path(sys.prefix) / "ministack"
"""Where it and all that it needs is installed."""
_START_SECONDS = 60.0


class MiniStack:
    """A server on a free port of loopback, with one empty bucket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bucket = "models"
        self._port = free_port()

    @property
    def endpoint(self) -> str:
        """The URL that S3 clients use."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def settings(self) -> StoreSettings:
        """The settings by which ``open_store`` reaches this server."""
        return StoreSettings(
            endpoint=self.endpoint,
            bucket=self.bucket,
            region="us-east-1",
            access_key_id="test",
            secret_access_key=SecretStr("test"),
            browser_url=None,
        )

    def __enter__(self) -> Self:
        environment = os.environ | {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self._port),
            "SERVICES": "s3",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "S3_PERSIST": "0",
            "TMPDIR": str(self.folder),
        }
        environment["PYTHONPATH"] = str(FOLDER)  # its own botocore comes before ours
        command = [sys.executable, "-c", "from ministack.app import main; main()"]
        self._server = Leashed(
            "ministack", command, log=self.folder / "server.log", environment=environment
        )
        wait_until_healthy(f"{self.endpoint}/_ministack/health", self._server, _START_SECONDS)
        open_store(self.settings).client.create_bucket(Bucket=self.bucket)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.let_go()
        self._server.wait()
