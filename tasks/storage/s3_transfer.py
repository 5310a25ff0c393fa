"""How large files pass to and from S3: in parts, several at once, each with its own checksum."""

from __future__ import annotations

import hashlib
from contextlib import closing
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from tasks.domain.errors import DigestMismatchError, StorageUnavailableError
from tasks.storage.digest import s3_checksum
from tasks.storage.pipeline import WORKERS, pipelined
from tasks.storage.s3_errors import NOT_FOUND, RACING, TAKEN, code_of
from tasks.storage.s3_resume import Unfinished, fits, give_back, holds, unfinished

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

_SPOILT = frozenset({"InvalidPart", "InvalidPartOrder"})
"""Answers to the completion of an upload one of whose parts somebody else has replaced."""

_CHANGED = TAKEN | {"InvalidRange", "416"}


class _SpoiltError(Exception):
    """An upload is of no use to us: it is somebody else's, or has been given back."""


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

    Each part carries its SHA-256, which the store compares. If anything fails, the parts stay
    in the store, and the next try sends only what is missing (see ``tasks.storage.s3_resume``);
    they are given back once the key is taken. At most about 64 MiB of the file is in memory at
    a time, up to 320 GiB of it; a larger one needs larger parts.

    Args:
        client: The store's.
        source: The file, open at its beginning.
        target: ``Bucket`` and ``Key``.
        content_type: Its media type.

    Raises:
        StorageUnavailableError: The upload was taken away from it, time and again.
    """
    size = source.seek(0, 2)
    part_bytes = PIECE_BYTES * max(-(-size // (PIECE_BYTES * _MOST_PARTS)), 1)
    begun = unfinished(client, target)
    fitting = [each for each in begun if fits(each, size, part_bytes)][:1]
    why: _SpoiltError | None = None
    for _ in range(TRIES):
        if not fitting:
            begun.append(_begin(client, target, content_type))
        mine = fitting.pop() if fitting else begun[-1]
        try:
            sent = _send_all(client, source, target, mine, part_bytes)
        except _SpoiltError as error:
            if not exists(client, target):
                why = error
                continue
            sent = Sent(_sha256_of(source), size, created=False)
        # whoever still sends to this key could only lose now
        for each in begun:
            if not (sent.created and each is mine):
                give_back(client, target, each.upload_id)
        return sent
    message = f"s3://{target['Bucket']}/{target['Key']}: others disturb its upload ({why})."
    raise StorageUnavailableError(f"{message} Run it again.")


def exists(client: S3Client, target: dict[str, str]) -> bool:
    """Say whether an object stands under a key."""
    from botocore.exceptions import ClientError

    try:
        client.head_object(Bucket=target["Bucket"], Key=target["Key"])
    except ClientError as error:
        if code_of(error) in NOT_FOUND:
            return False
        raise
    return True


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


def _sha256_of(source: BinaryIO) -> str:
    source.seek(0)
    return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type] # it reads into


def _begin(client: S3Client, target: dict[str, str], content_type: str) -> Unfinished:
    begun = client.create_multipart_upload(
        Bucket=target["Bucket"],
        Key=target["Key"],
        ContentType=content_type,
        ChecksumAlgorithm="SHA256",
    )
    return Unfinished(begun["UploadId"], {})


def _send_all(
    client: S3Client,
    source: BinaryIO,
    target: dict[str, str],
    begun: Unfinished,
    part_bytes: int,
) -> Sent:
    """Send the parts that an upload does not hold yet, and complete it."""
    where: dict[str, Any] = {**target, "UploadId": begun.upload_id}
    digest = hashlib.sha256()
    source.seek(0)
    parts = list(
        pipelined(
            lambda part: _send(client, where, begun, *part),
            _parts(source, part_bytes, digest.update),
            max(_IN_FLIGHT_BYTES // part_bytes, 1),
        )
    )
    created = _complete(client, where, parts)
    return Sent(digest.hexdigest(), source.tell(), created)


def _send(
    client: S3Client, where: dict[str, Any], begun: Unfinished, number: int, content: bytes
) -> CompletedPartTypeDef:
    from botocore.exceptions import ClientError

    checksum = s3_checksum(content)
    if stored := begun.parts.get(number):
        if not holds(stored, content, checksum):
            raise _SpoiltError(f"part {number} of {begun.upload_id} has other content")
        return {"PartNumber": number, "ETag": stored["ETag"], "ChecksumSHA256": checksum}
    try:
        sent = client.upload_part(**where, PartNumber=number, Body=content, ChecksumSHA256=checksum)
    except ClientError as error:
        if code_of(error) == "NoSuchUpload":
            raise _SpoiltError(f"{begun.upload_id} is gone") from error
        raise
    return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}


def _complete(client: S3Client, where: dict[str, Any], parts: list[CompletedPartTypeDef]) -> bool:
    from botocore.exceptions import ClientError

    try:
        done = client.complete_multipart_upload(
            **where, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
        )
        # SeaweedFS 4.48 looks first and writes then: of two at once both hear that they won
        return done["ETag"] == client.head_object(Bucket=where["Bucket"], Key=where["Key"])["ETag"]
    except ClientError as error:
        if code_of(error) in _LOST | NOT_FOUND:
            return False
        if code_of(error) in _SPOILT:
            raise _SpoiltError(f"{where['UploadId']}: {code_of(error)}") from error
        raise


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
