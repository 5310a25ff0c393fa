"""The pages above the versions, on a real server: derived, healed, and right whoever races."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tasks.domain.errors import StorageUnavailableError
from tasks.storage import current_pages
from tasks.storage.current_pages import write_current_pages
from tasks.storage.publishing import publish
from tasks.storage.s3 import S3Store, open_store
from tests.support.publisher import manifest_maker, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deployments.s3_server import S3Server
    from tasks.storage.store import StoredText

PAGES = ("README.md", "index.html")


@pytest.fixture
def store(s3_server: S3Server) -> S3Store:
    return open_store(s3_server.settings)


@pytest.fixture
def model() -> str:
    return f"model-{os.urandom(4).hex()}"


@pytest.fixture
def release(store: S3Store, model: str, tmp_path: Path) -> Callable[[], int]:
    """Lend a function that publishes one more version, without the pages above it."""

    def go() -> int:
        owner = os.urandom(4).hex()
        files = write_files(tmp_path / owner, {"onnx/model.onnx": b"onnx"})
        return publish(store, model, files, manifest_maker(model), owner=owner).version

    return go


def listed(store: S3Store, model: str) -> list[int]:
    """Return the versions that the model's page names, in its order."""
    lines = store.read(f"{model}/README.md").content.decode().splitlines()
    return [int(line[3:].partition("]")[0]) for line in lines if line.startswith("| [")]


def test_the_pages_name_every_version_the_newest_first(
    store: S3Store, model: str, release: Callable[[], int]
) -> None:
    for _ in range(11):
        release()

    write_current_pages(store, model)

    assert listed(store, model) == [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    page = store.read(f"{model}/README.md").content.decode()
    (latest,) = [line for line in page.splitlines() if "latest" in line]
    assert latest.startswith("| [11](11/README.md)")
    for key in (*PAGES, *(f"{model}/{name}" for name in PAGES)):
        assert model in store.read(key).content.decode()
        kind = store.client.head_object(Bucket=store.bucket, Key=key)["ContentType"]
        assert kind == f"text/{'html' if key.endswith('html') else 'markdown'}; charset=utf-8"


def test_a_page_that_a_crash_lost_or_left_behind_is_healed_by_the_next(
    store: S3Store, model: str, release: Callable[[], int]
) -> None:
    release()  # died before its pages
    release()
    store.create(f"{model}/README.md", b"| [9](of long ago) |", "text/plain")

    write_current_pages(store, model)

    assert listed(store, model) == [2, 1]
    assert b"2/index.html" in store.read(f"{model}/index.html").content


def test_pages_that_are_right_are_not_written_again(
    store: S3Store, model: str, release: Callable[[], int]
) -> None:
    release()
    write_current_pages(store, model)
    before = store.client.head_object(Bucket=store.bucket, Key=f"{model}/index.html")

    write_current_pages(store, model)

    after = store.client.head_object(Bucket=store.bucket, Key=f"{model}/index.html")
    assert after["LastModified"] == before["LastModified"]
    assert after["ETag"] == before["ETag"]


def test_publishers_at_once_end_with_a_page_that_names_all(
    store: S3Store, model: str, release: Callable[[], int]
) -> None:
    def release_with_pages(_: int) -> int:
        version = release()
        write_current_pages(store, model)
        return version

    with ThreadPoolExecutor(6) as pool:
        versions = sorted(pool.map(release_with_pages, range(6)), reverse=True)

    assert versions == [6, 5, 4, 3, 2, 1]
    assert listed(store, model) == versions


class _Interrupted(S3Store):
    """A store in which somebody else publishes just after our page has been derived."""

    def replace(
        self, key: str, content: bytes, etag: str, content_type: str = "application/json"
    ) -> bool:
        if meanwhile:
            meanwhile.pop()()
        return super().replace(key, content, etag, content_type)


meanwhile: list[Callable[[], None]] = []


def test_a_page_derived_before_another_was_written_is_derived_anew(
    store: S3Store, model: str, release: Callable[[], int]
) -> None:
    release()
    write_current_pages(store, model)
    release()

    def other() -> None:
        release()
        write_current_pages(store, model)

    meanwhile.append(other)

    write_current_pages(_Interrupted(store.client, store.bucket), model)

    assert not meanwhile
    assert listed(store, model) == [3, 2, 1]


class _Contested(S3Store):
    """A store in which somebody is always faster."""

    def replace(
        self, key: str, content: bytes, etag: str, content_type: str = "application/json"
    ) -> bool:
        del key, content, etag, content_type
        return False


def test_a_page_that_others_keep_writing_is_given_up(
    store: S3Store, model: str, release: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_pages, "MOST_TRIES", 3)
    release()
    write_current_pages(store, model)
    release()

    with pytest.raises(StorageUnavailableError, match=f"{model}/.*: too many write this page"):
        write_current_pages(_Contested(store.client, store.bucket), model)


def test_a_number_that_was_only_claimed_is_not_listed_and_an_unreadable_one_is_said(
    store: S3Store, model: str, release: Callable[[], int]
) -> None:
    release()
    store.create(f"{model}/2/.claim.json", b"{}")
    store.create(f"{model}/3/manifest.json", b'{"schema_version": 2}')
    store.create(f"{model}/aliases/odd.json", b"[]")

    write_current_pages(store, model)

    assert listed(store, model) == [3, 1]
    assert (
        "[3](3/README.md) | (its manifest cannot be read)"
        in store.read(f"{model}/README.md").content.decode()
    )


def test_hundreds_of_versions_make_a_small_page_by_few_requests(
    store: S3Store, model: str, release: Callable[[], int]
) -> None:
    release()
    manifest = store.read(f"{model}/1/manifest.json").content
    for version in range(2, 121):
        store.create(
            f"{model}/{version}/manifest.json",
            manifest.replace(b'"version": 1,', f'"version": {version},'.encode()),
        )
    asked: list[str] = []

    class Counting(S3Store):
        def read(self, key: str) -> StoredText:
            asked.append(key)
            return super().read(key)

    write_current_pages(Counting(store.client, store.bucket), model)

    assert listed(store, model) == list(range(120, 70, -1))
    assert "70 older numbers" in store.read(f"{model}/README.md").content.decode()
    assert len([key for key in asked if key.endswith("manifest.json")]) == 50
    assert len(store.read(f"{model}/README.md").content) < 10_000


def test_the_root_lists_models_and_nothing_else(
    store: S3Store, model: str, release: Callable[[], int]
) -> None:
    release()
    for key in ("quarantine/some/report.html", "work/run/file", "Not a model/x"):
        store.create(key, b"{}")

    write_current_pages(store, model)

    root = store.read("README.md").content.decode()
    assert f"- [{model}]({model}/README.md)" in root
    assert not {"quarantine", "work", "Not a model"} & set(root.replace("[", "]").split("]"))
