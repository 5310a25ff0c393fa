"""The S3 client's errors, and the disk's, in this project's own words: translated here alone."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.domain.errors import (
    ArtifactNotFoundError,
    ReleaseError,
    StorageError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.exceptions import ClientError

TAKEN = frozenset({"PreconditionFailed", "412"})
"""Answers to a conditional request whose condition does not hold."""

RACING = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
"""Answers to a conditional request while another one of the same key is under way."""

NOT_FOUND = frozenset({"NoSuchKey", "NotFound", "404"})
"""Answers to a request for an object that is not there."""
_DAMAGED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"})
_BUSY = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException"})
_FULL = frozenset({"InsufficientStorage", "XMinioStorageFull", "StorageFull", "QuotaExceeded"})
_REFUSED = {
    "NoSuchBucket": "the bucket does not exist. Create it, or set CONVEYOR_STORE_BUCKET.",
    "InvalidAccessKeyId": (
        "the store does not know the access key. Check CONVEYOR_STORE_ACCESS_KEY_ID."
    ),
    "SignatureDoesNotMatch": (
        "the secret does not belong to the access key. Check CONVEYOR_STORE_SECRET_ACCESS_KEY."
    ),
    "AccessDenied": "access denied. Give this access key read and write rights on the bucket.",
    "403": "access denied. Check the access key, its secret, and its rights on the bucket.",
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"),
        "the credentials have expired. Renew them, and run it again: it goes on where it ended.",
    ),
    "InvalidToken": "the session token is wrong. Renew the credentials.",
    # all that a HEAD request hears, whose answers have no body
    "400": "refused without a reason, as for expired credentials or another region. Check both.",
    "RequestTimeTooSkewed": "this machine's clock is wrong. Set it right.",
    "NotImplemented": "the store cannot do this. docs/stores.md says what is asked of one.",
    "EntityTooLarge": "the file is larger than the store takes.",
}
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# HTTP status codes
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_INSUFFICIENT_STORAGE = 507


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise what goes wrong inside as a member of our own tree, with the original as its cause.

    Args:
        where: The first words of the message, such as ``s3://bucket/key``.

    Raises:
        ArtifactNotFoundError: No object has this key.
        StorageUnavailableError: The store did not answer, broke off, or was busy.
        StorageError: It refused, or a disk is full.
    """
    from botocore.exceptions import BotoCoreError, ClientError, SSLError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ReleaseError:
        raise
    except ClientError as error:
        raise _refusal(where, error) from error
    except SSLError as error:
        message = f"{where}: no trusted connection to the store ({error}). Check its certificate."
        raise StorageError(message) from error
    except (BotoCoreError, HTTPError) as error:
        raise _failure(where, error) from error
    except OSError as error:
        raise _local_failure(where, error) from error


def code_of(error: ClientError) -> str:
    """Return the store's own word for what is wrong, or the status code where it has none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(where: str, error: ClientError) -> StorageError:
    code = code_of(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = str(error.response.get("Error", {}).get("Message", ""))[:300]
    if code in NOT_FOUND:
        return ArtifactNotFoundError(
            f"{where}: no such object. Was it stored in this bucket, or has it been removed?"
        )
    if code in _REFUSED:
        return StorageError(f"{where}: {_REFUSED[code]} (The store said {code}.)")
    if code in _FULL or status == _INSUFFICIENT_STORAGE or "no space left" in said.lower():
        return StorageError(
            f"{where}: the store is full ({code}: {said}). Make room there, then run it again."
        )
    if code in _DAMAGED:
        return StorageUnavailableError(
            f"{where}: the content was damaged on its way ({code}). Run it again."
        )
    if code in _BUSY | RACING or status == _TOO_MANY_REQUESTS or status >= _SERVER_ERROR:
        return StorageUnavailableError(
            f"{where}: the store could not do it now ({status} {code}: {said}). Try again later; "
            "if it stays so, see the store's log, and whether its disk is full."
        )
    return StorageError(f"{where}: the store refused ({status} {code}: {said}).")


def _failure(where: str, error: Exception) -> StorageError:
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    said = str(error)[:300]
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return StorageError(
            f"{where}: no credentials for the store. Set CONVEYOR_STORE_ACCESS_KEY_ID "
            "and CONVEYOR_STORE_SECRET_ACCESS_KEY."
        )
    on_the_wire = (
        HTTPError,
        exceptions.HTTPClientError,
        exceptions.ConnectionError,
        exceptions.ResponseStreamingError,
        exceptions.IncompleteReadError,
    )
    if isinstance(error, on_the_wire):
        return StorageUnavailableError(
            f"{where}: the store did not answer, or broke off ({said}). Is it up?"
        )
    return StorageError(f"{where}: {said}")


def _local_failure(where: str, error: OSError) -> StorageError:
    if error.errno in _DISK_FULL:
        return StorageError(
            f"{error.filename or where}: the disk of this machine is full, while working on "
            f"{where}. Make room, then run it again."
        )
    if isinstance(error, ConnectionError | TimeoutError):
        return StorageUnavailableError(f"{where}: the connection broke ({error}). Is it up?")
    return StorageError(f"{where}: {error.strerror or error} ({error.filename or 'no file'}).")
