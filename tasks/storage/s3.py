"""An object store behind the S3 protocol: SeaweedFS here, MinIO, or AWS itself."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

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
from tasks.storage.local_files import whole_file, write
from tasks.storage.s3_errors import RACING, TAKEN, code_of, translated
from tasks.storage.s3_transfer import PIECE_BYTES, TRIES
from tasks.storage.store import Entry, StoredText

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

    from tasks.settings import StoreSettings

_CONNECT_SECONDS = 5
_READ_SECONDS = 60
_DELETE_AT_ONCE = 1_000
"""Source: Amazon S3 API reference, "DeleteObjects"."""


@dataclass(frozen=True)
class S3Store:
    """An ``ObjectStore`` in one bucket; threads may share it."""

    client: S3Client
    bucket: str
    signer: S3Client | None = None
    """Signs links for people who reach the store under another address; it sends nothing."""

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
        with translated(self.url(file.key)), whole_file(path) as target:
            self._read_through(file, target)

    def take(self, key: str, path: Path) -> None:
        """Download beside ``path``, then move it there; see ``ObjectStore.take``."""
        with translated(self.url(key)), whole_file(path) as target:
            where = self._target(key)
            size_bytes = self.client.head_object(**where)["ContentLength"]  # type: ignore[arg-type]
            for content in s3_transfer.pieces(self.client, where, size_bytes):
                write(target, content)

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

    def replace(
        self, key: str, content: bytes, etag: str, content_type: str = "application/json"
    ) -> bool:
        """Write a small document over the one with ``etag``; see ``ObjectStore.replace``."""
        try:
            with translated(self.url(key)):
                return self._put_if(key, content, content_type, {"IfMatch": etag})
        except ArtifactNotFoundError:
            return False

    def link(self, key: str, seconds: int) -> str:
        """Sign a URL; see ``ObjectStore.link``."""
        with translated(self.url(key)):
            return (self.signer or self.client).generate_presigned_url(
                "get_object", Params=self._target(key), ExpiresIn=seconds
            )

    def keys(self, prefix: str) -> Iterator[str]:
        """List keys; see ``ObjectStore.keys``."""
        for each in self.entries(prefix):
            yield each.key

    def entries(self, prefix: str) -> Iterator[Entry]:
        """List keys with sizes and tags; see ``ObjectStore.entries``."""
        for page in self._pages(prefix):
            for each in page.get("Contents", ()):
                yield Entry(
                    each["Key"], each["Size"], each["ETag"], each["LastModified"].astimezone(UTC)
                )

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
        delete_keys(self, keys + folders_of(keys, prefix), prefix)
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
                written = writer.submit(write, target, content) if target else None
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
    public = settings.public_endpoint
    signer = _client(settings.model_copy(update={"endpoint": public})) if public else None
    return S3Store(_client(settings), settings.bucket, signer)


def delete_keys(store: S3Store, keys: list[str], where: str) -> None:
    """Delete objects by their keys, a thousand at a time; one that is gone is no error.

    Raises:
        StorageError: One of them could not be deleted.
    """
    for start in range(0, len(keys), _DELETE_AT_ONCE):
        batch = [{"Key": key} for key in keys[start : start + _DELETE_AT_ONCE]]
        with translated(store.url(where)):
            answer = store.client.delete_objects(
                Bucket=store.bucket,
                Delete={"Objects": batch, "Quiet": True},  # type: ignore[typeddict-item]
            )
        for each in answer.get("Errors", ()):
            why = f"{each.get('Code')}: {each.get('Message')}"
            raise StorageError(f"{store.url(str(each.get('Key')))}: was not removed ({why}).")


def folders_of(keys: list[str], prefix: str) -> list[str]:
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
        # for links: boto3 would sign them by version 2 in some regions, for any length of life
        signature_version="s3v4",
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
