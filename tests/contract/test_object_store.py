"""What every object store promises, held against the S3 store on a real server."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tasks.domain.artifact import StoredFile
from tasks.domain.errors import ArtifactNotFoundError, DigestMismatchError, StorageError
from tasks.storage.s3 import S3Store, open_store
from tasks.storage.s3_transfer import PIECE_BYTES
from tasks.storage.usable import ensure_usable

if TYPE_CHECKING:
    from collections.abc import Callable

    from deployments.s3_server import S3Server
    from tasks.settings import StoreSettings

SMALL, LARGE = 10, 2 * PIECE_BYTES + 3
SIZES = [
    pytest.param(0, id="empty"),
    pytest.param(SMALL, id="small"),
    pytest.param(PIECE_BYTES, id="largest-in-one-request"),
    pytest.param(PIECE_BYTES + 1, id="two-parts"),
    pytest.param(LARGE, id="three-parts"),
]
BOTH = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])


@pytest.fixture
def store(either_store: StoreSettings) -> S3Store:
    return open_store(either_store)


@pytest.fixture
def folder() -> str:
    """Name a folder of the test's own in the one bucket."""
    return f"test-{os.urandom(4).hex()}"


@pytest.fixture
def new_file(tmp_path: Path) -> Callable[[int], Path]:
    def write(size: int) -> Path:
        path = tmp_path / os.urandom(4).hex()
        path.write_bytes(os.urandom(size))
        return path

    return write


@pytest.mark.parametrize("size", SIZES)
def test_a_file_comes_back_as_it_went(
    store: S3Store, folder: str, new_file: Callable[[int], Path], tmp_path: Path, size: int
) -> None:
    source, back = new_file(size), tmp_path / "new" / "folder" / "back"

    file = store.put(source, f"{folder}/file")
    store.check(file)
    store.get(file, back)

    assert file.size_bytes == size
    assert file.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert back.read_bytes() == source.read_bytes()
    assert [path.name for path in back.parent.iterdir()] == ["back"]


@pytest.mark.parametrize("size", SIZES)
def test_what_a_key_holds_is_taken_as_it_is(
    store: S3Store, folder: str, new_file: Callable[[int], Path], tmp_path: Path, size: int
) -> None:
    source, back = new_file(size), tmp_path / "new" / "folder" / "back"
    store.put(source, f"{folder}/file")

    store.take(f"{folder}/file", back)

    assert back.read_bytes() == source.read_bytes()
    assert [path.name for path in back.parent.iterdir()] == ["back"]


def test_what_is_not_there_cannot_be_taken_and_leaves_nothing(
    store: S3Store, folder: str, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactNotFoundError, match="/nobody"):
        store.take(f"{folder}/nobody", tmp_path / "new" / "back")

    assert list((tmp_path / "new").iterdir()) == []


@BOTH
def test_putting_equal_content_again_is_no_error(
    store: S3Store, folder: str, new_file: Callable[[int], Path], size: int
) -> None:
    source = new_file(size)
    first = store.put(source, f"{folder}/file")

    again = store.put(source, f"{folder}/file")

    assert again == first


@BOTH
@pytest.mark.parametrize("more", [0, 1], ids=["same-size", "other-size"])
def test_a_key_is_never_overwritten(
    store: S3Store, folder: str, new_file: Callable[[int], Path], size: int, more: int
) -> None:
    first = store.put(new_file(size), f"{folder}/file")

    with pytest.raises(DigestMismatchError, match=r"/file: content changed since"):
        store.put(new_file(size + more), f"{folder}/file")

    store.check(first)


@BOTH
def test_of_two_writers_of_one_key_exactly_one_wins_and_the_other_leaves_nothing(
    store: S3Store, folder: str, new_file: Callable[[int], Path], size: int
) -> None:
    sources = [new_file(size), new_file(size)]
    together = threading.Barrier(2)

    def put(source: Path) -> StoredFile | None:
        together.wait()
        try:
            file = store.put(source, f"{folder}/file")
            store.check(file)  # as publishing does: SeaweedFS may tell two that they won
        except DigestMismatchError:
            return None
        return file

    with ThreadPoolExecutor(2) as pool:
        won = [file for file in pool.map(put, sources) if file]

    parts = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=folder)
    assert len(won) == 1
    assert not parts.get("Uploads")
    store.check(won[0])


def test_two_writers_of_equal_content_both_succeed(
    store: S3Store, folder: str, new_file: Callable[[int], Path]
) -> None:
    source = new_file(LARGE)

    with ThreadPoolExecutor(2) as pool:
        puts = [pool.submit(store.put, source, f"{folder}/file") for _ in range(2)]

    assert puts[0].result() == puts[1].result()


@BOTH
def test_other_content_under_a_recorded_key_is_noticed_and_nothing_is_kept(
    store: S3Store, folder: str, new_file: Callable[[int], Path], tmp_path: Path, size: int
) -> None:
    file = store.put(new_file(size), f"{folder}/file")
    store.client.put_object(Bucket=store.bucket, Key=file.key, Body=os.urandom(size))
    target = tmp_path / "empty"

    with pytest.raises(DigestMismatchError, match="content changed"):
        store.check(file)
    with pytest.raises(DigestMismatchError, match="content changed"):
        store.get(file, target / "file")

    assert list(target.iterdir()) == []


def test_a_key_without_an_object_is_not_found(store: S3Store, folder: str, tmp_path: Path) -> None:
    nothing = StoredFile(key=f"{folder}/nothing", sha256="0" * 64, size_bytes=3)

    for ask in (
        lambda: store.check(nothing),
        lambda: store.get(nothing, tmp_path / "file"),
        lambda: store.read(nothing.key),
    ):
        with pytest.raises(ArtifactNotFoundError, match=f"{folder}/nothing: no such object"):
            ask()

    assert list(tmp_path.iterdir()) == []


def test_a_document_is_created_once_whoever_tries(store: S3Store, folder: str) -> None:
    contents = [f'{{"writer": {number}}}'.encode() for number in range(16)]

    with ThreadPoolExecutor(16) as pool:
        created = list(pool.map(lambda each: store.create(f"{folder}/one.json", each), contents))

    assert created.count(True) == 1
    assert store.read(f"{folder}/one.json").content == contents[created.index(True)]


def test_a_document_is_replaced_only_by_who_has_seen_its_last_state(
    store: S3Store, folder: str
) -> None:
    key = f"{folder}/alias.json"
    store.create(key, b"1")
    seen = store.read(key).etag

    first, second = store.replace(key, b"2", seen), store.replace(key, b"3", seen)

    assert (first, second) == (True, False)
    assert store.read(key).content == b"2"
    assert not store.replace(f"{folder}/nothing.json", b"1", seen)


def test_a_replaced_document_has_the_type_it_is_given(store: S3Store, folder: str) -> None:
    key, kind = f"{folder}/index.html", "text/html; charset=utf-8"
    store.create(key, b"old", kind)

    store.replace(key, b"new", store.read(key).etag, kind)

    assert store.client.head_object(Bucket=store.bucket, Key=key)["ContentType"] == kind


def test_the_folders_of_the_whole_bucket_are_listed(store: S3Store, folder: str) -> None:
    store.create(f"{folder}/1/x", b"{}")

    assert folder in set(store.folders(""))


def test_a_link_opens_without_credentials(store: S3Store, folder: str) -> None:
    store.create(f"{folder}/page.html", b"<p>", "text/html; charset=utf-8")

    answer = httpx.get(store.link(f"{folder}/page.html", 60), trust_env=False)

    assert (answer.status_code, answer.content) == (200, b"<p>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in str(answer.request.url)


def test_a_link_is_refused_after_its_life_and_for_any_other_key(
    s3_server: S3Server, folder: str
) -> None:
    store = open_store(s3_server.settings)  # MiniStack asks for no signature
    for name in ("one", "two"):
        store.create(f"{folder}/{name}", name.encode())
    link = store.link(f"{folder}/one", 1)
    time.sleep(2.1)  # whole seconds are signed: at most one more than the life itself

    late = httpx.get(link, trust_env=False)
    other = httpx.get(store.link(f"{folder}/one", 60).replace("/one?", "/two?"), trust_env=False)
    bare = httpx.get(link.partition("?")[0], trust_env=False)

    assert [each.status_code for each in (late, other, bare)] == [403, 403, 403]


def test_a_link_is_signed_for_the_address_by_which_people_come(
    s3_server: S3Server, folder: str
) -> None:
    public = s3_server.endpoint.replace("127.0.0.1", "localhost")
    inside = "http://store.invalid:9000"
    settings = s3_server.settings.model_copy(update={"endpoint": inside, "public_endpoint": public})
    open_store(s3_server.settings).create(f"{folder}/file", b"{}")

    link = open_store(settings).link(f"{folder}/file", 60)

    assert link.startswith(f"{public}/")
    assert httpx.get(link, trust_env=False).content == b"{}"


def test_keys_and_folders_are_listed_and_removed_below_their_prefix_only(
    store: S3Store, folder: str
) -> None:
    keys = {f"{folder}/{name}" for name in ("a/1/x", "a/1/y", "a/2/x", "a/z", "ab/1/x")}
    for key in keys:
        store.create(key, b"{}")

    listed, folders = set(store.keys(f"{folder}/")), set(store.folders(f"{folder}/a/"))
    removed = store.remove(f"{folder}/a/")

    assert listed == keys
    assert folders == {"1", "2"}
    assert removed == 4
    assert list(store.keys(f"{folder}/")) == [f"{folder}/ab/1/x"]
    assert list(store.folders(f"{folder}/")) == ["ab"]


def test_a_listing_says_size_and_tag_of_every_object_as_reading_it_does(
    store: S3Store, folder: str, new_file: Callable[[int], Path]
) -> None:
    files = [store.put(new_file(size), f"{folder}/{size}") for size in (0, SMALL, LARGE)]

    entries = {each.key: each for each in store.entries(f"{folder}/")}

    assert {key: each.size_bytes for key, each in entries.items()} == {
        file.key: file.size_bytes for file in files
    }
    assert {each.etag for each in entries.values()} == {store.read(f.key).etag for f in files}


@BOTH
def test_other_bytes_of_the_same_size_have_another_tag_in_a_listing(
    store: S3Store, folder: str, new_file: Callable[[int], Path], size: int
) -> None:
    for name in ("one", "two"):
        store.put(new_file(size), f"{folder}/{name}")

    one, two = store.entries(f"{folder}/")

    assert one.size_bytes == two.size_bytes == size
    assert one.etag != two.etag


def test_a_listing_of_more_than_one_page_is_whole(store: S3Store, folder: str) -> None:
    names = {f"{folder}/{number}" for number in range(1_005)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.create(key, b"{}"), names))

    listed = [each.key for each in store.entries(f"{folder}/")]

    assert len(listed) == len(names)
    assert set(listed) == names


def test_the_whole_bucket_cannot_be_removed_by_mistake(store: S3Store, folder: str) -> None:
    store.create(f"{folder}/file", b"{}")

    with pytest.raises(StorageError, match="will not empty the whole bucket"):
        store.remove("")

    assert store.read(f"{folder}/file").content == b"{}"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("manifest.json", "application/json"),
        ("report.html", "text/html; charset=utf-8"),
        ("report.md", "text/markdown; charset=utf-8"),
        ("parity.svg", "image/svg+xml"),
        ("model.onnx", "application/octet-stream"),
    ],
)
def test_a_browser_is_told_what_kind_a_file_is(
    store: S3Store, folder: str, new_file: Callable[[int], Path], name: str, kind: str
) -> None:
    file = store.put(new_file(SMALL), f"{folder}/{name}")

    head = store.client.head_object(Bucket=store.bucket, Key=file.key)

    assert head["ContentType"] == kind


def test_the_server_refuses_a_part_that_was_damaged_on_its_way(store: S3Store, folder: str) -> None:
    where = {"Bucket": store.bucket, "Key": f"{folder}/file"}
    upload = store.client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")  # type: ignore[arg-type]

    with pytest.raises(store.client.exceptions.ClientError, match="BadDigest"):
        store.client.upload_part(
            **where,  # type: ignore[arg-type]
            UploadId=upload["UploadId"],
            PartNumber=1,
            Body=b"damaged",
            ChecksumSHA256="A" * 43 + "=",
        )


def test_a_usable_store_is_found_usable_and_left_as_it_was(store: S3Store) -> None:
    before = set(store.keys(""))

    ensure_usable(store)

    assert set(store.keys("")) == before


class _Overwriting(S3Store):
    """A server that does not know conditional writes: it takes the second one too."""

    def create(self, key: str, content: bytes, content_type: str = "application/json") -> bool:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content, ContentType=content_type)
        return True


def test_a_store_that_overwrites_is_refused_before_a_run(store: S3Store) -> None:
    careless = _Overwriting(store.client, store.bucket)

    with pytest.raises(StorageError, match="does not honour conditional writes"):
        ensure_usable(careless)
