"""``s3:``, by boto3's own chain of credentials; our own bucket by the store's settings."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from tasks.domain.errors import AcquisitionError, ConfigurationError
from tasks.fetch import transfer as transfers
from tasks.fetch.transfer import BrokenTransferError, NotResumableError, Stream, Wanted
from tasks.fetch.wording import out_of_reach, redacted
from tasks.settings import store_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES = 1 << 18


def download(wanted: Wanted) -> None:
    """Bring ``wanted`` to its part.

    Raises:
        AcquisitionError: No such object, no right to read it, or no server.
        ConfigurationError: The uri names no object.
    """
    bucket, _, key = wanted.uri.removeprefix("s3://").partition("/")
    if not bucket or not key or key.endswith("/"):
        message = (
            f"{wanted.uri}: names no object (expected s3://bucket/key). "
            "A folder has to be packed first, as .zip or .tar.gz."
        )
        raise ConfigurationError(message)
    client = _open_client(bucket)

    @contextmanager
    def open_stream(offset: int, tag: str | None) -> Iterator[Stream]:
        request: dict[str, Any] = {"Bucket": bucket, "Key": key}
        if offset:
            request |= {"Range": f"bytes={offset}-"} | ({"IfMatch": tag} if tag else {})
        with _faults_in_words(wanted, offset):
            reply = client.get_object(**request)
            with closing(reply["Body"]) as body:
                total = offset + reply["ContentLength"]
                yield Stream(offset, total, reply["ETag"], body.iter_chunks(_CHUNK_BYTES))

    transfers.transfer(wanted, open_stream)


def _open_client(bucket: str) -> S3Client:
    import boto3
    from botocore.config import Config

    patience, store = transfers.PATIENCE, store_settings()
    ours: dict[str, Any] = {}
    if bucket == store.bucket:
        secret = store.secret_access_key
        ours = {
            "endpoint_url": store.endpoint,
            "region_name": store.region,
            "aws_access_key_id": store.access_key_id,
            "aws_secret_access_key": secret.get_secret_value() if secret else None,
        }
    config = Config(
        connect_timeout=patience.connect_seconds,
        read_timeout=patience.read_seconds,
        retries={"total_max_attempts": 2, "mode": "standard"},
        s3={"addressing_style": "path"} if ours.get("endpoint_url") else {},
        response_checksum_validation="when_required",  # a part of a file has no checksum
    )
    return boto3.client("s3", config=config, **ours)


@contextmanager
def _faults_in_words(wanted: Wanted, offset: int) -> Iterator[None]:
    """Turn boto3's errors into ours: final ones, and those worth another try."""
    from botocore import exceptions as boto
    from urllib3.exceptions import HTTPError

    uri = redacted(wanted.uri)
    try:
        yield
    except boto.ClientError as error:
        raise _refusal(uri, offset, error) from error
    except (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError) as e:
        if offset:
            raise BrokenTransferError(str(e)) from e
        raise AcquisitionError(out_of_reach(wanted, "the S3 server", e)) from e
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound) as error:
        message = (
            f"{uri}: no credentials to read it with ({error}). Set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the worker's environment."
        )
        raise AcquisitionError(message) from error
    except (boto.HTTPClientError, boto.IncompleteReadError, HTTPError) as error:
        raise BrokenTransferError(str(error)) from error
    except boto.BotoCoreError as error:
        message = f"{uri}: cannot be downloaded ({error})."
        raise AcquisitionError(message) from error


def _refusal(uri: str, offset: int, error: ClientError) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", "?"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if offset and status in {412, 416}:
        return NotResumableError()
    if status in {429, 500, 502, 503, 504}:
        return BrokenTransferError(f"the server answered {code}")
    if status == 404:  # noqa: PLR2004 - not found
        return AcquisitionError(f"{uri}: is not there ({code}). Check bucket and key.")
    return AcquisitionError(
        f"{uri}: the server does not hand it out ({code}). Check the credentials' rights."
    )
