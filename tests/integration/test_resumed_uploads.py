"""A large file whose upload broke: what is there and right stays, and only the rest is sent."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tasks.domain.errors import DigestMismatchError, StorageError, StorageUnavailableError
from tasks.storage.digest import s3_checksum
from tasks.storage.s3 import S3Store, open_store
from tasks.storage.s3_transfer import PIECE_BYTES
from tests.support.cutting_proxy import CuttingProxy
from tests.support.s3_gateway import Answer, Request, S3Gateway

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.settings import StoreSettings

MIB = 1024 * 1024
PARTS = 4
SIZE = (PARTS - 1) * PIECE_BYTES + 5
NOTHING: frozenset[str] = frozenset()


@pytest.fixture
def store(either_store: StoreSettings) -> S3Store:
    return open_store(either_store)


@pytest.fixture
def key() -> str:
    return f"test-{os.urandom(4).hex()}/file"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


def part_of(path: Path, number: int) -> bytes:
    start = (number - 1) * PIECE_BYTES
    return path.read_bytes()[start : start + PIECE_BYTES]


def begin(store: S3Store, key: str, parts: dict[int, bytes]) -> str:
    """Leave an upload as a process that died would: some parts sent, nothing completed."""
    where = {"Bucket": store.bucket, "Key": key}
    begun = store.client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")  # type: ignore[arg-type]
    upload_id = begun["UploadId"]
    for number, content in parts.items():
        store.client.upload_part(
            **where,  # type: ignore[arg-type]
            UploadId=upload_id,
            PartNumber=number,
            Body=content,
            ChecksumSHA256=s3_checksum(content),
        )
    return upload_id


def unfinished(store: S3Store, prefix: str) -> list[tuple[str, str]]:
    listed = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=prefix)
    return [(each["Key"], each["UploadId"]) for each in listed.get("Uploads", ())]


def is_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber=" in request.path


def parts_sent(gateway: S3Gateway) -> list[int]:
    sent = [each.path for each in gateway.seen if is_part(each)]
    return sorted(int(path.partition("partNumber=")[2].partition("&")[0]) for path in sent)


def through(server: StoreSettings) -> S3Gateway:
    return S3Gateway(server, lambda _request: NOTHING)


def test_the_second_try_sends_only_the_parts_that_are_missing(
    either_store: StoreSettings, store: S3Store, key: str, source: Path
) -> None:
    begin(store, key, {number: part_of(source, number) for number in (1, 3)})

    with through(either_store) as gateway:
        file = open_store(gateway.settings).put(source, key)

    assert parts_sent(gateway) == [2, 4]
    store.check(file)
    assert unfinished(store, key) == []


def test_what_a_broken_connection_let_through_is_not_sent_again(
    either_store: StoreSettings, store: S3Store, key: str, tmp_path: Path
) -> None:
    size = 64 * MIB
    path = tmp_path / "large"
    path.write_bytes(os.urandom(size))

    def put_through(proxy: CuttingProxy) -> None:
        settings = either_store.model_copy(update={"endpoint": proxy.address})
        open_store(settings).put(path, key)

    with (
        CuttingProxy(str(either_store.endpoint), up_bytes=44 * MIB) as broken,
        pytest.raises(StorageUnavailableError, match="broke off"),
    ):
        put_through(broken)
    assert list(store.keys(key)) == []
    (begun,) = (upload_id for _key, upload_id in unfinished(store, key))
    listed = store.client.list_parts(Bucket=store.bucket, Key=key, UploadId=begun)
    there = sum(part["Size"] for part in listed["Parts"])
    with CuttingProxy(str(either_store.endpoint)) as whole:
        put_through(whole)

    assert there >= 8 * MIB
    missing = size - there
    assert missing <= whole.passed["up"] <= missing + MIB
    assert unfinished(store, key) == []


def test_a_part_of_other_content_is_never_counted_as_ours(
    either_store: StoreSettings, store: S3Store, key: str, source: Path
) -> None:
    begin(store, key, {1: part_of(source, 1), 2: os.urandom(PIECE_BYTES)})

    with through(either_store) as gateway:
        file = open_store(gateway.settings).put(source, key)

    assert set(parts_sent(gateway)) == set(range(1, PARTS + 1))
    store.check(file)


def test_parts_of_another_size_are_never_counted_as_ours(
    either_store: StoreSettings, store: S3Store, key: str, source: Path
) -> None:
    begin(store, key, {1: part_of(source, 1)[: 5 * MIB]})

    with through(either_store) as gateway:
        file = open_store(gateway.settings).put(source, key)

    assert parts_sent(gateway) == list(range(1, PARTS + 1))
    store.check(file)


def test_of_several_broken_uploads_the_fullest_is_taken_and_the_others_are_given_back(
    either_store: StoreSettings, store: S3Store, key: str, source: Path
) -> None:
    begin(store, key, {1: part_of(source, 1)})
    begin(store, key, {number: part_of(source, number) for number in (1, 2, 3)})
    begin(store, key, {})

    with through(either_store) as gateway:
        open_store(gateway.settings).put(source, key)

    assert parts_sent(gateway) == [4]
    assert unfinished(store, key) == []


def test_unfinished_uploads_of_other_keys_are_left_alone(
    store: S3Store, key: str, source: Path
) -> None:
    other = begin(store, f"{key}.data", {1: part_of(source, 1)})

    store.put(source, key)

    assert unfinished(store, key) == [(f"{key}.data", other)]


def test_two_that_go_on_with_one_broken_upload_both_succeed(
    store: S3Store, key: str, source: Path
) -> None:
    begin(store, key, {1: part_of(source, 1)})
    together = threading.Barrier(2)

    def put(_number: int) -> object:
        together.wait()
        return store.put(source, key)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(put, range(2))

    assert first == second
    assert unfinished(store, key) == []


def test_who_lives_on_with_other_content_in_the_same_upload_wins_or_loses_whole(
    store: S3Store, key: str, source: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(part_of(source, 1) + os.urandom(SIZE - PIECE_BYTES))
    begin(store, key, {1: part_of(source, 1)})
    together = threading.Barrier(2)

    def put(path: Path) -> Path | None:
        together.wait()
        try:
            store.check(store.put(path, key))
        except DigestMismatchError:
            return None
        return path

    with ThreadPoolExecutor(2) as pool:
        won = [path for path in pool.map(put, (source, other)) if path]

    assert len(won) == 1
    assert store.read(key).content == won[0].read_bytes()
    assert unfinished(store, key) == []


def test_an_upload_given_back_by_somebody_else_is_begun_anew(
    either_store: StoreSettings, store: S3Store, key: str, source: Path
) -> None:
    upload_id = begin(store, key, {1: part_of(source, 1)})

    def give_back_first(request: Request) -> frozenset[str]:
        if is_part(request) and unfinished(store, key) == [(key, upload_id)]:
            store.client.abort_multipart_upload(Bucket=store.bucket, Key=key, UploadId=upload_id)
        return NOTHING

    with S3Gateway(either_store, give_back_first) as gateway:
        file = open_store(gateway.settings).put(source, key)

    store.check(file)
    assert unfinished(store, key) == []


@pytest.mark.parametrize("code", ["NoSuchUpload", "InvalidPart"])
def test_an_upload_that_others_disturb_for_ever_is_worth_another_try(
    either_store: StoreSettings, store: S3Store, key: str, source: Path, code: str
) -> None:
    def disturb(request: Request) -> Answer | frozenset[str]:
        wanted = is_part(request) if code == "NoSuchUpload" else _completes(request)
        return Answer(400 if code == "InvalidPart" else 404, code) if wanted else NOTHING

    with (
        S3Gateway(either_store, disturb) as gateway,
        pytest.raises(StorageUnavailableError, match="others disturb its upload"),
    ):
        open_store(gateway.settings).put(source, key)

    assert list(store.keys(key)) == []
    store.check(store.put(source, key))
    assert unfinished(store, key) == []


def _completes(request: Request) -> bool:
    return request.method == "POST" and "uploadId=" in request.path


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (501, "NotImplemented")])
def test_where_uploads_cannot_be_listed_everything_is_sent(
    either_store: StoreSettings, store: S3Store, key: str, source: Path, status: int, code: str
) -> None:
    begin(store, key, {1: part_of(source, 1)})

    def refuse_lists(request: Request) -> Answer | frozenset[str]:
        return Answer(status, code) if "?uploads" in request.path and _gets(request) else NOTHING

    with S3Gateway(either_store, refuse_lists) as gateway:
        file = open_store(gateway.settings).put(source, key)

    assert parts_sent(gateway) == list(range(1, PARTS + 1))
    store.check(file)


def _gets(request: Request) -> bool:
    return request.method == "GET"


def test_credentials_that_expire_in_mid_upload_are_named_once_and_renewed_ones_go_on(
    either_store: StoreSettings, store: S3Store, key: str, source: Path
) -> None:
    parts = count(1)
    expired = threading.Event()

    def expire(request: Request) -> Answer | frozenset[str]:
        if is_part(request) and next(parts) > 2:
            expired.set()
            return Answer(400, "ExpiredToken")
        return Answer(400, "ExpiredToken") if _completes(request) else NOTHING

    with (
        S3Gateway(either_store, expire) as gateway,
        pytest.raises(StorageError, match=r"credentials have expired\. Renew them") as caught,
    ):
        open_store(gateway.settings).put(source, key)
    tried = parts_sent(gateway)
    seen = list(store.keys(key))
    with through(either_store) as renewed:
        file = open_store(renewed.settings).put(source, key)

    assert expired.is_set()
    assert not caught.value.transient
    assert len(tried) == len(set(tried)), "a part was tried again, though nothing could change"
    assert seen == []
    assert len(parts_sent(renewed)) == PARTS - 2
    store.check(file)
