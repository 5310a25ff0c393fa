"""Whether a store can be published to, asked before a run and not found out in the midst of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tasks.domain.errors import StorageError
from tasks.storage.s3_errors import TAKEN, code_of, translated
from tasks.storage.s3_resume import give_back

if TYPE_CHECKING:
    from tasks.storage.s3 import S3Store

_FIRST, _OTHER, _NEXT = b"{}", b"[]", b"[1]"


def ensure_usable(store: S3Store) -> None:
    """Make sure that what a run will need works, with a dozen small requests.

    Raises:
        StorageUnavailableError: The store does not answer.
        StorageError: The bucket is missing, the credentials are wrong or do not suffice, or
            the store does not honour conditional writes, without which releases could be
            overwritten.
    """
    key = f".probe-{uuid4().hex}"  # no folder: some servers keep empty ones
    try:
        if fault := _fault(store, key):
            message = (
                f"{store.url(key)}: the store does not honour conditional writes (expected "
                f"If-None-Match and If-Match to be obeyed, got {fault}). Use a server that does, "
                "such as AWS S3, MinIO or SeaweedFS of 2025 or later; docs/stores.md has a list."
            )
            raise StorageError(message)
    finally:
        store.remove(key)


def _fault(store: S3Store, key: str) -> str:
    """Write, and try to write what must be refused; return what went wrong, or nothing.

    Servers exist that fail in each of these and in no other one.
    """
    if not store.create(key, _FIRST):
        return "a free key refused as taken"
    if store.create(key, _OTHER):
        return "an object overwritten in spite of If-None-Match"
    if store.replace(key, _OTHER, '"0"'):
        return "an object overwritten in spite of an If-Match with another tag"
    if not store.replace(key, _NEXT, store.read(key).etag):
        return "an object kept in spite of an If-Match with its own tag"
    if _completes_over(store, key):
        return "an object overwritten by a multipart upload in spite of If-None-Match"
    return "" if store.read(key).content == _NEXT else "other content than was written"


def _completes_over(store: S3Store, key: str) -> bool:
    from botocore.exceptions import ClientError

    where = {"Bucket": store.bucket, "Key": key}
    with translated(store.url(key)):
        upload = store.client.create_multipart_upload(Bucket=store.bucket, Key=key)["UploadId"]
        try:
            part = store.client.upload_part(
                Bucket=store.bucket, Key=key, UploadId=upload, PartNumber=1, Body=_OTHER
            )
            store.client.complete_multipart_upload(
                Bucket=store.bucket,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
                IfNoneMatch="*",
            )
        except ClientError as error:
            if code_of(error) in TAKEN:
                return False
            raise
        finally:
            give_back(store.client, where, upload)
    return True
