"""The bucket is created by a bootstrap that waits for a store that starts, and for no other."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from deployments import bootstrap
from tasks.settings import store_settings
from tasks.storage.s3 import open_store
from tests.support.s3_gateway import Answer, Request, S3Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.s3_server import S3Server
    from tasks.settings import StoreSettings

NOTHING: frozenset[str] = frozenset()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreSettings]:
    """Return the settings of a bucket that is not there."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CONVEYOR_STORE_BUCKET", f"new-{uuid4().hex[:8]}")
    store_settings.cache_clear()
    yield store_settings()
    store_settings.cache_clear()


def through(gateway: S3Gateway, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("CONVEYOR_STORE_ENDPOINT", str(gateway.settings.endpoint))
    store_settings.cache_clear()


def test_a_store_that_still_starts_is_waited_for(
    bucket: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = 12  # more than the client has by itself

    def starting(_: Request) -> Answer | frozenset[str]:
        starts = len(gateway.seen) <= patience
        return Answer(503, "XMinioServerNotInitialized") if starts else NOTHING

    with S3Gateway(bucket, starting) as gateway:
        through(gateway, monkeypatch)
        bootstrap.create_bucket()
        bootstrap.create_bucket()

    assert len(gateway.seen) == patience + 2
    assert list(open_store(bucket).keys("")) == []


def test_a_store_that_never_starts_is_given_up(
    bucket: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_SERVER_SECONDS", 0)
    with S3Gateway(bucket, lambda _: Answer(503, "SlowDown")) as gateway:
        through(gateway, monkeypatch)
        with pytest.raises(SystemExit, match="no S3 server answers"):
            bootstrap.create_bucket()


def test_a_refusal_is_told_at_once(bucket: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Gateway(bucket, lambda _: Answer(403, "AccessDenied")) as gateway:
        through(gateway, monkeypatch)
        with pytest.raises(SystemExit, match="cannot be created"):
            bootstrap.create_bucket()

    assert len(gateway.seen) == 1
