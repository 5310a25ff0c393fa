"""Stores that forget a condition are refused before a run, whichever condition it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.domain.errors import StorageError
from tasks.storage.s3 import open_store
from tasks.storage.usable import ensure_usable
from tests.support.s3_gateway import S3Gateway
from tests.support.weak_stores import NOTHING, WEAK

if TYPE_CHECKING:
    from deployments.s3_server import S3Server


@pytest.mark.parametrize("kind", WEAK)
def test_a_store_that_forgets_a_condition_is_refused_with_the_condition_s_name(
    s3_server: S3Server, kind: str
) -> None:
    change, words = WEAK[kind]
    refusal = f"does not honour conditional writes .*{words}"
    own = open_store(s3_server.settings)
    before = set(own.keys(""))

    with (
        S3Gateway(s3_server.settings, change) as gateway,
        pytest.raises(StorageError, match=refusal) as caught,
    ):
        ensure_usable(open_store(gateway.settings))

    assert not caught.value.transient
    assert set(own.keys("")) == before
    assert not own.client.list_multipart_uploads(Bucket=own.bucket, Prefix=".probe").get("Uploads")


def test_the_same_gateway_is_usable_if_it_forgets_nothing(s3_server: S3Server) -> None:
    with S3Gateway(s3_server.settings, lambda _request: NOTHING) as gateway:
        ensure_usable(open_store(gateway.settings))

    conditional = [each for each in gateway.seen if "If-None-Match" in each.headers]
    assert {each.method for each in conditional} == {"PUT", "POST"}
