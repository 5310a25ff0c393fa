"""An object store behind the S3 protocol: SeaweedFS here, MinIO, or AWS itself."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit
from uuid import uuid4

from tasks.domain.artifact import StoredFile
from tasks.domain.errors import (
    ArtifactNotFoundError,
    ConfigurationError,
    DigestMismatchError,
    StorageError,
    StorageUnavailableError,
)
from tasks.storage import s3_transfer
from tasks.storage.digest import content_type_of, s3_checksum
from tasks.storage.s3_errors import RACING, TAKEN, code_of, translated
from tasks.storage.s3_transfer import PIECE_BYTES, TRIES
from tasks.storage.store import StoredText

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

    from tasks.settings import StoreSettings

_CONNECT_SECONDS = 5
_READ_SECONDS = 60
_WRITE_BYTES = 256 * 1024
"""Written in pieces of 8 MiB, a file costs the kernel eight times as much (measured on ext4)."""

_DELETE_AT_ONCE = 1_000
"""Source: Amazon S3 API reference, "DeleteObjects"."""


@dataclass(frozen=True)
class S3Store:
    """An ``ObjectStore`` in one bucket; threads may share it."""

    client: S3Client
    bucket: str

    def url(self, key: str) -> str:
        """Return ``s3://bucket/key``."""
        return f"s3://{self.bucket}/{key}"

    def put(self, path: Path, key: str, content_type: str | None = None) -> StoredFile:
        """Upload a file, in parts if it is large; see ``ObjectStore.put``."""
        kind = content_type or content_type_of(key)
        with translated(self.url(key)), path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            if size <= PIECE_BYTES:
                content = source.read()
                sha256, size = hashlib.sha256(content).hexdigest(), len(content)
                created = self._put_if(key, content, kind, {"IfNoneMatch": "*"})
            elif s3_transfer.exists(self.client, self._target(key)):
                digest = hashlib.file_digest(source, "sha256")
                sha256, created = digest.hexdigest(), False
            else:
                sha256, size, created = s3_transfer.upload(
                    self.client, source, self._target(key), kind
                )
        new = StoredFile(key=key, sha256=sha256, size_bytes=size)
        if not created:
            self._require_same(new)
        return new

    def get(self, file: StoredFile, path: Path) -> None:
        """Download beside ``path``, then move there what is right; see ``ObjectStore.get``."""
        with translated(self.url(file.key)):
            path.parent.mkdir(parents=True, exist_ok=True)
            unproven = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
            try:
                with unproven.open("xb") as target:
                    self._read_through(file, target)
                unproven.replace(path)
            finally:
                unproven.unlink(missing_ok=True)

    def check(self, file: StoredFile) -> None:
        """Read back and hash; see ``ObjectStore.check``."""
        with translated(self.url(file.key)):
            self._read_through(file)

    def read(self, key: str) -> StoredText:
        """Return a small document; see ``ObjectStore.read``."""
        with translated(self.url(key)):
            return StoredText(*s3_transfer.fetch(self.client, self._target(key)))

    def create(self, key: str, content: bytes, content_type: str = "application/json") -> bool:
        """Write a small document if ``key`` is free; see ``ObjectStore.create``."""
        with translated(self.url(key)):
            return self._put_if(key, content, content_type, {"IfNoneMatch": "*"})

    def replace(self, key: str, content: bytes, etag: str) -> bool:
        """Write a small document over the one with ``etag``; see ``ObjectStore.replace``."""
        try:
            with translated(self.url(key)):
                return self._put_if(key, content, "application/json", {"IfMatch": etag})
        except ArtifactNotFoundError:
            return False

    def keys(self, prefix: str) -> Iterator[str]:
        """List keys; see ``ObjectStore.keys``."""
        for page in self._pages(prefix):
            for each in page.get("Contents", ()):
                yield each["Key"]

    def folders(self, prefix: str) -> Iterator[str]:
        """List folders; see ``ObjectStore.folders``."""
        for page in self._pages(prefix, "/"):
            for each in page.get("CommonPrefixes", ()):
                yield each["Prefix"].removeprefix(prefix).rstrip("/")

    def remove(self, prefix: str) -> int:
        """Delete all below a prefix; see ``ObjectStore.remove``."""
        if not prefix:
            raise StorageError(f"{self.url('')}: will not empty the whole bucket. Give a prefix.")
        keys = list(self.keys(prefix))
        # some servers (SeaweedFS) keep empty folders; to the others these keys are nothing
        everything = keys + _folders_of(keys, prefix)
        for start in range(0, len(everything), _DELETE_AT_ONCE):
            batch = [{"Key": key} for key in everything[start : start + _DELETE_AT_ONCE]]
            with translated(self.url(prefix)):
                answer = self.client.delete_objects(
                    Bucket=self.bucket,
                    Delete={"Objects": batch, "Quiet": True},  # type: ignore[typeddict-item]
                )
            for each in answer.get("Errors", ()):
                why = f"{each.get('Code')}: {each.get('Message')}"
                raise StorageError(f"{self.url(str(each.get('Key')))}: was not removed ({why}).")
        return len(keys)

    def _target(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": key}

    def _put_if(
        self, key: str, content: bytes, content_type: str, condition: dict[str, Any]
    ) -> bool:
        from botocore.exceptions import ClientError

        for attempt in range(1, TRIES + 1):
            try:
                self.client.put_object(
                    **self._target(key),  # type: ignore[arg-type]
                    Body=content,
                    ContentType=content_type,
                    ChecksumSHA256=s3_checksum(content),
                    **condition,
                )
            except ClientError as error:
                if code_of(error) in TAKEN:
                    return False
                if code_of(error) not in RACING or attempt == TRIES:
                    raise
                time.sleep(0.2 * attempt)
            else:
                return True
        raise AssertionError

    def _require_same(self, new: StoredFile) -> None:
        try:
            self.check(new)
        except ArtifactNotFoundError as error:
            message = f"{self.url(new.key)}: another writer took this key, then gave it up."
            raise StorageUnavailableError(f"{message} Run it again.") from error

    def _read_through(self, file: StoredFile, target: BinaryIO | None = None) -> None:
        """Hash an object while it is read, and write it to ``target`` meanwhile."""
        digest = hashlib.sha256()
        where = self._target(file.key)
        with ThreadPoolExecutor(1, thread_name_prefix="writer") as writer:
            for content in s3_transfer.pieces(self.client, where, file.size_bytes):
                written = writer.submit(_write, target, content) if target else None
                digest.update(content)
                if written:
                    written.result()
        if digest.hexdigest() != file.sha256:
            raise DigestMismatchError.of(
                self.url(file.key), expected=file.sha256, got=digest.hexdigest()
            )

    def _pages(self, prefix: str, delimiter: str = "") -> Iterator[ListObjectsV2OutputTypeDef]:
        with translated(self.url(prefix)):
            pages = self.client.get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=self.bucket, Prefix=prefix, Delimiter=delimiter)


def open_store(settings: StoreSettings) -> S3Store:
    """Return the store of these settings; nothing goes over the network yet.

    Raises:
        ConfigurationError: The endpoint is not a URL.
    """
    return S3Store(_client(settings), settings.bucket)


def _write(target: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    target.writelines(
        view[start : start + _WRITE_BYTES] for start in range(0, len(content), _WRITE_BYTES)
    )


def _folders_of(keys: list[str], prefix: str) -> list[str]:
    """Return the folders of ``keys`` at or below ``prefix``, the deepest first."""
    parents = {f"{folder}/" for key in keys for folder in map(str, PurePosixPath(key).parents)}
    below = (folder for folder in parents if folder.startswith(prefix))
    return sorted(below, key=lambda folder: (-folder.count("/"), folder))


@cache
def _client(settings: StoreSettings) -> S3Client:
    from boto3.session import Session
    from botocore.config import Config

    secret = settings.secret_access_key
    host = urlsplit(settings.endpoint or "").hostname
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        # every body that matters carries its SHA-256 in a signed header: hashing it again for
        # the signature, and with CRC on top, would cost half of the throughput
        s3={
            "addressing_style": "path" if settings.endpoint else "auto",
            "payload_signing_enabled": False,
        },
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        proxies={} if host in {"127.0.0.1", "localhost", "::1"} else None,
    )
    try:
        return Session().client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region,
            aws_access_key_id=settings.access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=config,
        )
    except ValueError as error:
        message = f"CONVEYOR_STORE_ENDPOINT: not a URL ({error}). Write http://host:port."
        raise ConfigurationError(message) from error
