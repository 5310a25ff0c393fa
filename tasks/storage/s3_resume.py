"""Finding what an upload that broke has left in the store, so that only the rest is sent again.

A part counts only if its digest, as the store lists it, is that of the local bytes. So an
upload can be taken over from whoever began it: from a process that was killed, or from one
that still lives. Two that send equal bytes into one upload do each other no harm, and where
bytes differ the upload is left to the other one. What is completed names each part by its tag.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.storage.s3_errors import code_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import PartTypeDef

_MOST_LOOKED_INTO = 5
"""Uploads of one key whose parts are listed, the youngest first."""

_CANNOT_LIST = frozenset(
    {"AccessDenied", "403", "NotImplemented", "501", "MethodNotAllowed", "405", "InvalidRequest"}
)
"""Answers of stores that do not list uploads, or not to us: everything is sent, as it would be."""


class Unfinished(NamedTuple):
    """An upload that was begun and not completed, and what it holds."""

    upload_id: str
    parts: Mapping[int, PartTypeDef]

    @property
    def size_bytes(self) -> int:
        """How much of the file is there."""
        return sum(part["Size"] for part in self.parts.values())


def unfinished(client: S3Client, target: dict[str, str]) -> list[Unfinished]:
    """Return the uploads of this very key that were not completed, the fullest first.

    Args:
        client: The store's.
        target: ``Bucket`` and ``Key``.
    """
    from botocore.exceptions import ClientError

    try:
        return sorted(_list(client, target), key=lambda each: -each.size_bytes)
    except ClientError as error:
        if code_of(error) in _CANNOT_LIST:
            return []
        raise


def fits(upload: Unfinished, size_bytes: int, part_bytes: int) -> bool:
    """Say whether an upload may be one of a file of this size, by the sizes of its parts."""
    return bool(upload.parts) and all(
        part["Size"] == min(part_bytes, size_bytes - (number - 1) * part_bytes)
        for number, part in upload.parts.items()
    )


def holds(part: PartTypeDef, content: bytes, checksum: str) -> bool:
    """Say whether a stored part is this content.

    Args:
        part: As the store lists it.
        content: What it should be.
        checksum: SHA-256 of ``content``, in base64. Where the store lists none, the tag of a
            part must be its MD5; a store that makes its tags otherwise has every part sent again.
    """
    if part["Size"] != len(content):
        return False
    if "ChecksumSHA256" in part:
        return part["ChecksumSHA256"] == checksum
    return part["ETag"].strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest()


def give_back(client: S3Client, target: dict[str, str], upload_id: str) -> None:
    """Give back the parts of an upload whose key is taken, so that it cannot be completed."""
    from botocore.exceptions import BotoCoreError, ClientError

    # what is left is room lost, and no fault of the release
    with suppress(ClientError, BotoCoreError):
        client.abort_multipart_upload(
            Bucket=target["Bucket"], Key=target["Key"], UploadId=upload_id
        )


def _list(client: S3Client, target: dict[str, str]) -> list[Unfinished]:
    pages = client.get_paginator("list_multipart_uploads").paginate(
        Bucket=target["Bucket"], Prefix=target["Key"]
    )
    begun: list[Any] = [
        each
        for page in pages
        for each in page.get("Uploads", ())
        if each["Key"] == target["Key"] and each.get("ChecksumAlgorithm", "SHA256") == "SHA256"
    ]
    begun.sort(key=lambda each: each["Initiated"], reverse=True)
    found = (_look_into(client, target, each["UploadId"]) for each in begun[:_MOST_LOOKED_INTO])
    return [each for each in found if each]


def _look_into(client: S3Client, target: dict[str, str], upload_id: str) -> Unfinished | None:
    from botocore.exceptions import ClientError

    pages = client.get_paginator("list_parts").paginate(
        Bucket=target["Bucket"], Key=target["Key"], UploadId=upload_id
    )
    try:
        parts = {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
    except ClientError as error:
        if code_of(error) == "NoSuchUpload":  # completed or given back since it was listed
            return None
        raise
    return Unfinished(upload_id, parts)
