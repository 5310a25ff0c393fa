"""How large files pass to and from S3: in parts, several at once, each with its own checksum."""

from __future__ import annotations

import hashlib
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from tasks.domain.errors import DigestMismatchError
from tasks.storage.digest import s3_checksum
from tasks.storage.pipeline import WORKERS, pipelined
from tasks.storage.s3_errors import RACING, TAKEN, code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, GetObjectOutputTypeDef

TRIES = 3

PIECE_BYTES = 8 * 1024 * 1024
"""What one request carries: smaller costs more requests, larger costs more memory."""

_IN_FLIGHT_BYTES = WORKERS * PIECE_BYTES

_MOST_PARTS = 10_000
"""Source: Amazon S3 user guide, "Amazon S3 multipart upload limits"."""

_LOST = TAKEN | RACING | {"NoSuchUpload"}
"""Answers to the completion of an upload whose key has been taken meanwhile.

``NoSuchUpload`` is what a second try hears when the first one's answer was lost on its way.
"""

_CHANGED = TAKEN | {"InvalidRange", "416"}


class Sent(NamedTuple):
    """A file that went up."""

    sha256: str
    size_bytes: int
    created: bool
    """Whether the key was free for it."""


class Fetched(NamedTuple):
    """Bytes of an object, and which object they are of."""

    content: bytes
    etag: str


def upload(client: S3Client, source: BinaryIO, target: dict[str, str], content_type: str) -> Sent:
    """Send a file in parts, unless another object stands under its key when it is complete.

    Each part carries its SHA-256, which the store compares. If anything fails, the parts are
    given back. At most about 64 MiB of the file is in memory at a time, up to 320 GiB of it;
    a larger one needs larger parts.

    Args:
        client: The store's.
        source: The file, open at its beginning.
        target: ``Bucket`` and ``Key``.
        content_type: Its media type.
    """
    begun = client.create_multipart_upload(
        Bucket=target["Bucket"],
        Key=target["Key"],
        ContentType=content_type,
        ChecksumAlgorithm="SHA256",
    )
    where: dict[str, Any] = {**target, "UploadId": begun["UploadId"]}
    size = source.seek(0, 2)
    source.seek(0)
    part_bytes = PIECE_BYTES * max(-(-size // (PIECE_BYTES * _MOST_PARTS)), 1)
    digest = hashlib.sha256()
    created = False
    try:
        parts = list(
            pipelined(
                lambda part: _send(client, where, *part),
                _parts(source, part_bytes, digest.update),
                max(_IN_FLIGHT_BYTES // part_bytes, 1),
            )
        )
        created = _complete(client, where, parts)
    finally:
        if not created:
            _abort(client, where)
    return Sent(digest.hexdigest(), source.tell(), created)


def pieces(client: S3Client, target: dict[str, str], size_bytes: int) -> Iterator[bytes]:
    """Yield an object's content in order, several pieces being read at once.

    Args:
        client: The store's.
        target: ``Bucket`` and ``Key``.
        size_bytes: How large it must be.

    Raises:
        DigestMismatchError: It is of another size, or is replaced meanwhile.
    """
    content, etag = fetch(client, target, range(min(size_bytes, PIECE_BYTES)), size_bytes)
    yield content
    del content
    starts = range(PIECE_BYTES, size_bytes, PIECE_BYTES)
    if not starts:
        return
    parts = (range(start, min(start + PIECE_BYTES, size_bytes)) for start in starts)
    same = {**target, "IfMatch": etag}
    yield from pipelined(
        lambda part: fetch(client, same, part, size_bytes).content,
        parts,
        _IN_FLIGHT_BYTES // PIECE_BYTES,
    )


def fetch(
    client: S3Client,
    target: dict[str, str],
    part: range | None = None,
    size_bytes: int | None = None,
) -> Fetched:
    """Read an object, or a part of it; try again if the connection breaks on the way.

    Args:
        client: The store's.
        target: ``Bucket`` and ``Key``, and ``IfMatch`` where it must be a certain object.
        part: Which of its bytes; absent: all.
        size_bytes: How large the whole object must be; absent: any size.

    Raises:
        DigestMismatchError: It is another object, or of another size.
    """
    from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

    options: dict[str, Any] = dict(target)
    if part is not None and len(part) != size_bytes:
        options["Range"] = f"bytes={part.start}-{part.stop - 1}"
    for attempt in range(1, TRIES + 1):
        try:
            answer = client.get_object(**options)
            with closing(answer["Body"]) as body:
                _require_size(target, answer, size_bytes)
                return Fetched(body.read(), answer["ETag"])
        except ClientError as error:
            if code_of(error) in _CHANGED:
                message = f"s3://{target['Bucket']}/{target['Key']}: is not what was recorded"
                raise DigestMismatchError(f"{message} ({code_of(error)}).") from error
            raise
        except (HTTPClientError, IncompleteReadError):
            if attempt == TRIES:
                raise
    raise AssertionError


def _parts(
    source: BinaryIO, part_bytes: int, seen: Callable[[bytes], object]
) -> Iterator[tuple[int, bytes]]:
    number = 0
    while content := source.read(part_bytes):
        seen(content)
        number += 1
        yield number, content


def _send(
    client: S3Client, where: dict[str, Any], number: int, content: bytes
) -> CompletedPartTypeDef:
    checksum = s3_checksum(content)
    sent = client.upload_part(**where, PartNumber=number, Body=content, ChecksumSHA256=checksum)
    return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}


def _complete(client: S3Client, where: dict[str, Any], parts: list[CompletedPartTypeDef]) -> bool:
    from botocore.exceptions import ClientError

    try:
        client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
    except ClientError as error:
        if code_of(error) in _LOST:
            return False
        raise
    return True


def _abort(client: S3Client, where: dict[str, Any]) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    # what made it fail is worth more to the reader than why its parts could not be given back
    with suppress(ClientError, BotoCoreError):
        client.abort_multipart_upload(**where)


def _require_size(
    target: dict[str, str], answer: GetObjectOutputTypeDef, size_bytes: int | None
) -> None:
    """Raise before anything is read if the whole object is of another size."""
    total = int(answer.get("ContentRange", "").rpartition("/")[2] or answer["ContentLength"])
    if size_bytes is not None and total != size_bytes:
        message = (
            f"s3://{target['Bucket']}/{target['Key']}: content changed since it was recorded "
            f"(expected {size_bytes:,} bytes, got {total:,}). "
            "Publish under a new version; a published key is never overwritten."
        )
        raise DigestMismatchError(message)
