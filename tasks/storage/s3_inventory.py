"""The inventory of a bucket behind the S3 protocol."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from tasks.domain.errors import StorageError
from tasks.storage.inventory import Upload
from tasks.storage.s3 import S3Store, delete_keys, folders_of, open_store
from tasks.storage.s3_errors import code_of, translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tasks.settings import StoreSettings


@dataclass(frozen=True)
class S3Inventory(S3Store):
    """An ``Inventory`` of one bucket; threads may share it."""

    def now(self) -> datetime:
        """Read the clock off an answer's header; see ``Inventory.now``."""
        where = self.url("")
        with translated(where):
            answer = self.client.head_bucket(Bucket=self.bucket)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(date)
        except ValueError as error:
            message = f"{where}: the store's answers say no time (expected a Date, got '{date}')."
            raise StorageError(message) from error

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """List unfinished uploads; see ``Inventory.uploads``."""
        with translated(self.url(prefix)):
            pages = self.client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix):
                for each in page.get("Uploads", ()):
                    begun = each["Initiated"].astimezone(UTC)
                    yield Upload(each["Key"], each["UploadId"], begun)

    def abort(self, upload: Upload) -> None:
        """Give up an upload; see ``Inventory.abort``."""
        from botocore.exceptions import ClientError

        with translated(self.url(upload.key)):
            try:
                self.client.abort_multipart_upload(
                    Bucket=self.bucket, Key=upload.key, UploadId=upload.id
                )
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise

    def delete(self, keys: Iterable[str], below: str) -> None:
        """Delete objects; see ``Inventory.delete``."""
        listed = list(keys)
        # where a folder is an entry of its own (SeaweedFS), one that is not empty stays
        delete_keys(self, listed + folders_of(listed, below), below)


def open_inventory(settings: StoreSettings) -> S3Inventory:
    """Return the inventory of these settings' bucket; nothing goes over the network yet.

    Raises:
        ConfigurationError: The endpoint is not a URL.
    """
    store = open_store(settings)
    return S3Inventory(store.client, store.bucket)
