"""Aliases on a real server: who moves them, where to, and what happens to those who race."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tasks.domain.errors import (
    AliasConflictError,
    ArtifactNotFoundError,
    ConfigurationError,
    DigestMismatchError,
    NewerSchemaError,
    ReleaseError,
    StorageError,
)
from tasks.domain.release import Alias, Published
from tasks.storage import aliases
from tasks.storage.aliases import advance, promote, read_alias, read_aliases, resolve, rollback
from tasks.storage.publishing import publish, read_release
from tasks.storage.s3_inventory import S3Inventory, open_inventory
from tests.support.publisher import manifest_maker, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deployments.s3_server import S3Server


@pytest.fixture
def store(s3_server: S3Server) -> S3Inventory:
    return open_inventory(s3_server.settings)


@pytest.fixture
def model() -> str:
    return f"model-{os.urandom(4).hex()}"


@pytest.fixture
def release(store: S3Inventory, model: str, tmp_path: Path) -> Callable[..., Published]:
    """Lend a function that publishes the next version."""

    def go(**options: Any) -> Published:
        owner = os.urandom(4).hex()
        files = write_files(tmp_path / owner, {"onnx/model.onnx": owner.encode()})
        return publish(store, model, files, manifest_maker(model), owner=owner, **options)

    return go


@pytest.fixture
def three(release: Callable[..., Published]) -> None:
    for _ in range(3):
        release()


def overwrite(store: S3Inventory, key: str, content: bytes) -> None:
    store.client.put_object(Bucket=store.bucket, Key=key, Body=content)


def versions_of(alias: Alias | None) -> list[int]:
    assert alias is not None
    return [move.version for move in alias.moves]


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("alias", ["latest", "candidate", "champion", "shadow-2"])
def test_an_alias_stands_where_it_was_promoted_to_and_says_who_and_why(
    store: S3Inventory, model: str, alias: str
) -> None:
    promote(store, model, alias, 2, by="ann", reason="it is better")

    standing = read_alias(store, model, alias)
    assert standing is not None
    assert (standing.version, standing.by, standing.how, standing.reason) == (
        2,
        "ann",
        "promote",
        "it is better",
    )
    manifest = resolve(store, model, alias)
    assert manifest == read_release(store, model, 2)


@pytest.mark.usefixtures("three")
def test_promoting_to_where_it_stands_adds_no_move(store: S3Inventory, model: str) -> None:
    first = promote(store, model, "champion", 2, by="ann")

    again = promote(store, model, "champion", 2, by="bob")

    assert again == first == read_alias(store, model, "champion")


@pytest.mark.usefixtures("three")
def test_rollbacks_undo_one_move_after_the_other_and_do_not_swing(
    store: S3Inventory, model: str
) -> None:
    for version in (1, 3, 2):
        promote(store, model, "champion", version, by="ann")

    first = rollback(store, model, "champion", by="ann")
    second = rollback(store, model, "champion", by="ann")

    assert (first.version, second.version) == (3, 1)
    assert versions_of(read_alias(store, model, "champion")) == [1, 3, 2, 3, 1]
    with pytest.raises(AliasConflictError, match=r"cannot be rolled back .*got none"):
        rollback(store, model, "champion", by="ann")


@pytest.mark.usefixtures("three")
def test_a_rollback_after_a_rollback_and_a_promotion_undoes_the_promotion(
    store: S3Inventory, model: str
) -> None:
    promote(store, model, "champion", 1, by="ann")
    promote(store, model, "champion", 2, by="ann")
    rollback(store, model, "champion", by="ann")
    promote(store, model, "champion", 3, by="ann")

    assert rollback(store, model, "champion", by="ann").version == 1


def test_an_alias_that_never_stood_anywhere_cannot_be_rolled_back(
    store: S3Inventory, model: str
) -> None:
    assert read_alias(store, model, "champion") is None
    assert resolve(store, model, "champion") is None

    with pytest.raises(AliasConflictError, match="Promote the version that you want"):
        rollback(store, model, "champion", by="ann")


@pytest.mark.usefixtures("three")
def test_a_caller_who_saw_another_state_is_refused_and_nothing_moves(
    store: S3Inventory, model: str
) -> None:
    promote(store, model, "champion", 1, by="ann")
    promote(store, model, "champion", 2, by="bob")
    before = read_alias(store, model, "champion")

    with pytest.raises(AliasConflictError, match=r"expected version 1, got 2"):
        promote(store, model, "champion", 3, by="ann", expected=1)
    with pytest.raises(AliasConflictError, match=r"expected version 1, got 2"):
        rollback(store, model, "champion", by="ann", expected=1)
    with pytest.raises(AliasConflictError, match=r"expected version none, got 2"):
        promote(store, model, "champion", 3, by="ann", expected=0)

    assert read_alias(store, model, "champion") == before
    assert promote(store, model, "champion", 3, by="ann", expected=2).version == 3


@pytest.mark.usefixtures("three")
def test_a_rollback_that_is_asked_for_again_is_done_once(store: S3Inventory, model: str) -> None:
    for version in (1, 2, 3):
        promote(store, model, "champion", version, by="ann")

    first = rollback(store, model, "champion", by="run 7", expected=3)
    again = rollback(store, model, "champion", by="run 7", expected=3)

    assert first == again
    assert again.version == 2


class _Racing(S3Inventory):
    """Somebody else moves the alias between our look and our move, once."""

    def replace(
        self, key: str, content: bytes, etag: str, content_type: str = "application/json"
    ) -> bool:
        rival = open_inventory_of(self)
        alias = key.rpartition("/")[2].removesuffix(".json")
        if (standing := read_alias(rival, key.partition("/")[0], alias)) and standing.by != "rival":
            promote(rival, standing.model, alias, 3, by="rival")
        return super().replace(key, content, etag, content_type)


def open_inventory_of(store: S3Inventory) -> S3Inventory:
    return S3Inventory(store.client, store.bucket)


@pytest.mark.usefixtures("three")
def test_a_promotion_that_loses_a_race_is_tried_again_where_its_intent_still_holds(
    store: S3Inventory, model: str
) -> None:
    promote(store, model, "champion", 1, by="ann")

    moved = promote(_Racing(store.client, store.bucket), model, "champion", 2, by="ann")

    assert versions_of(moved) == [2, 3, 1]
    assert read_alias(store, model, "champion") == moved


@pytest.mark.usefixtures("three")
def test_a_promotion_or_rollback_from_a_seen_state_that_loses_a_race_is_refused(
    store: S3Inventory, model: str
) -> None:
    for alias in ("one", "two"):
        promote(store, model, alias, 1, by="ann")
        promote(store, model, alias, 2, by="ann")
    racing = _Racing(store.client, store.bucket)

    with pytest.raises(AliasConflictError, match="expected version 2, got 3"):
        promote(racing, model, "one", 1, by="ann", expected=2)
    with pytest.raises(AliasConflictError, match="expected version 2, got 3"):
        rollback(racing, model, "two", by="ann")

    assert versions_of(read_alias(store, model, "one")) == [3, 2, 1]
    assert versions_of(read_alias(store, model, "two")) == [3, 2, 1]


class _Forgetful(S3Inventory):
    """The move succeeds, its answer is lost, and the client's second try hears 'taken'."""

    def replace(
        self, key: str, content: bytes, etag: str, content_type: str = "application/json"
    ) -> bool:
        super().replace(key, content, etag, content_type)
        return super().replace(key, content, etag, content_type)


@pytest.mark.usefixtures("three")
def test_a_move_whose_answer_was_lost_is_recognised_as_our_own(
    store: S3Inventory, model: str
) -> None:
    promote(store, model, "champion", 1, by="ann")
    forgetful = _Forgetful(store.client, store.bucket)

    promote(forgetful, model, "champion", 2, by="ann", expected=1)
    rollback(forgetful, model, "champion", by="ann", expected=2)

    assert versions_of(read_alias(store, model, "champion")) == [1, 2, 1]


def test_of_two_processes_that_promote_at_once_no_move_is_lost(
    s3_server: S3Server, store: S3Inventory, model: str, release: Callable[..., Published]
) -> None:
    for _ in range(4):
        release()
    turns = {"ann": [1, 2] * 15, "bob": [3, 4] * 15}
    command = [sys.executable, "-m", "tests.support.promoter", model, "champion"]
    promoters = [
        subprocess.Popen(
            [*command, name, *map(str, versions)],
            env=os.environ | s3_server.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, versions in turns.items()
    ]
    for each in promoters:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: each.communicate("go\n", timeout=60), promoters))

    assert [each.returncode for each in promoters] == [0, 0]
    standing = read_alias(store, model, "champion")
    assert standing is not None
    for name, versions in turns.items():
        moved = [move.version for move in reversed(standing.moves) if move.by == name]
        assert moved == versions


@pytest.mark.usefixtures("three")
def test_of_eight_that_promote_from_one_seen_state_exactly_one_wins(
    store: S3Inventory, model: str
) -> None:
    promote(store, model, "champion", 1, by="before")

    def go(number: int) -> Alias | ReleaseError:
        try:
            return promote(store, model, "champion", 2 + number % 2, by=f"{number}", expected=1)
        except AliasConflictError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(go, range(8)))

    standing = read_alias(store, model, "champion")
    won = [each for each in answers if isinstance(each, Alias) and each == standing]
    assert len({(each.by, each.moved) for each in won}) == 1
    assert len(versions_of(standing)) == 2


def test_a_version_without_a_manifest_is_not_promoted(store: S3Inventory, model: str) -> None:
    store.create(f"{model}/1/.claim.json", b"{}")

    with pytest.raises(ArtifactNotFoundError, match=f"{model}/1/manifest.json"):
        promote(store, model, "champion", 1, by="ann")

    assert read_alias(store, model, "champion") is None


@pytest.mark.usefixtures("three")
def test_a_version_with_a_file_missing_or_cut_short_is_not_promoted(
    store: S3Inventory, model: str
) -> None:
    store.delete([f"{model}/1/onnx/model.onnx"], f"{model}/1/")
    overwrite(store, f"{model}/2/onnx/model.onnx", b"cut")

    with pytest.raises(StorageError, match=r"1/onnx/model\.onnx: is not what .*got no object"):
        promote(store, model, "champion", 1, by="ann")
    with pytest.raises(StorageError, match=r"2/onnx/model\.onnx: .*expected 8 bytes, got 3"):
        promote(store, model, "champion", 2, by="ann")

    assert read_alias(store, model, "champion") is None


@pytest.mark.usefixtures("three")
def test_a_rollback_does_not_believe_a_manifest_that_changed(
    store: S3Inventory, model: str
) -> None:
    promote(store, model, "champion", 1, by="ann")
    promote(store, model, "champion", 2, by="ann")
    key = f"{model}/1/manifest.json"
    overwrite(store, key, store.read(key).content.replace(b"false", b"true "))

    with pytest.raises(DigestMismatchError, match="content changed"):
        rollback(store, model, "champion", by="ann")

    assert versions_of(read_alias(store, model, "champion")) == [2, 1]


@pytest.mark.parametrize("alias", ["Champion", "../latest", "a/b", "", "a--b"])
def test_a_name_that_is_no_slug_is_refused(store: S3Inventory, model: str, alias: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name for an alias"):
        promote(store, model, alias, 1, by="ann")


def test_latest_moves_on_past_a_rollback_but_never_back_to_what_was_rolled_back(
    store: S3Inventory, model: str, release: Callable[..., Published]
) -> None:
    release()
    second = release()
    rollback(store, model, "latest", by="ann")

    again = advance(store, model, 2, second.manifest.sha256, by="the same run, tried again")
    third = release()

    assert again is False
    assert third.latest is True
    assert versions_of(read_alias(store, model, "latest")) == [3, 1, 2, 1]


@pytest.mark.usefixtures("three")
def test_a_history_is_bounded(
    store: S3Inventory, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliases, "KEPT_MOVES", 4)
    for turn in range(8):
        promote(store, model, "champion", 1 + turn % 3, by="ann")

    assert versions_of(read_alias(store, model, "champion")) == [2, 1, 3, 2, 1]


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("year", [1970, 2199])
def test_times_that_lie_far_in_the_past_or_future_decide_nothing(
    store: S3Inventory, model: str, release: Callable[..., Published], year: int
) -> None:
    for key in (f"{model}/aliases/latest.json", f"{model}/1/manifest.json"):
        document = json.loads(store.read(key).content)
        name = "moved" if "moved" in document else "created"
        document[name] = datetime(year, 1, 1, tzinfo=UTC).isoformat()
        overwrite(store, key, json.dumps(document).encode())

    published = release()
    promoted = promote(store, model, "latest", 1, by="ann")
    back = rollback(store, model, "latest", by="ann")

    assert published.latest is True
    assert (promoted.version, back.version) == (1, 4)
    assert versions_of(read_alias(store, model, "latest")) == [4, 1, 4, 3, 2, 1]


@pytest.mark.usefixtures("three")
def test_a_document_of_a_newer_schema_is_named_and_left_alone(
    store: S3Inventory, model: str
) -> None:
    promote(store, model, "champion", 2, by="ann")
    for key in (f"{model}/aliases/latest.json", f"{model}/1/manifest.json"):
        newer = json.loads(store.read(key).content) | {"schema_version": 2, "version": 9}
        overwrite(store, key, json.dumps(newer).encode())
    before = store.read(f"{model}/aliases/latest.json")

    for ask in (
        lambda: read_release(store, model, 1),
        lambda: promote(store, model, "champion", 1, by="ann"),
        lambda: promote(store, model, "latest", 2, by="ann"),
        lambda: advance(store, model, 9, "0" * 64, by="ann"),
        lambda: resolve(store, model, "latest"),
    ):
        with pytest.raises(NewerSchemaError) as caught:
            ask()
        words = str(caught.value)
        assert words.startswith(f"s3://models/{model}/")
        assert "expected schema_version 1 or less, got 2). Install a version that knows 2" in words

    assert store.read(f"{model}/aliases/latest.json") == before


@pytest.mark.usefixtures("three")
def test_an_alias_from_before_there_were_histories_is_read_and_moves_on(
    store: S3Inventory, model: str
) -> None:
    key = f"{model}/aliases/latest.json"
    old = json.loads(store.read(key).content)
    bare = {name: old[name] for name in ("model", "version", "manifest_sha256", "moved")}
    overwrite(store, key, json.dumps(bare).encode())

    promote(store, model, "latest", 1, by="ann")

    assert versions_of(read_aliases(store, model)["latest"]) == [1, 3]
