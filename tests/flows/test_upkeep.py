"""Upkeep as flows: each does what its command does, and leaves a table behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows import upkeep
from tasks.domain.errors import AliasConflictError, ArtifactNotFoundError
from tasks.domain.garbage import KeepPolicy
from tasks.settings import store_settings
from tasks.storage.aliases import read_alias
from tasks.storage.publishing import publish
from tasks.storage.s3_inventory import S3Inventory, open_inventory
from tests.flows.conftest import forget_settings
from tests.support.publisher import manifest_maker, write_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments.s3_server import S3Server


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Inventory]:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_settings()
    yield open_inventory(store_settings())
    forget_settings()


@pytest.fixture
def model(store: S3Inventory, tmp_path: Path) -> str:
    """Publish three releases and return the model's name."""
    name = f"model-{os.urandom(4).hex()}"
    files = write_files(tmp_path, {"onnx/model.onnx": b"onnx"})
    for owner in ("one", "two", "three"):
        publish(store, name, files, manifest_maker(name), owner=owner)
    return name


def artifacts(key: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        return list(client.read_artifacts(artifact_filter=wanted))


def test_an_alias_is_promoted_by_number_or_by_another_alias_and_rolled_back(
    store: S3Inventory, model: str
) -> None:
    upkeep.promote(model, "candidate", 2, reason="looks good")
    upkeep.promote(model, "champion", 1)
    upkeep.promote(model, "champion", "candidate", expected=1)

    back = upkeep.rollback(model, "champion", reason="customers complain")

    assert [move.version for move in back.moves] == [1, 2, 1]
    assert (back.how, back.reason) == ("rollback", "customers complain")
    assert back.by.startswith("flow run ")
    assert back == read_alias(store, model, "champion") == upkeep.history(model, "champion")
    shown = [each.data for each in artifacts(f"history-{model}-champion")]
    assert any("customers complain" in data for data in shown)


def test_a_promotion_from_a_state_that_is_no_more_fails_and_moves_nothing(
    store: S3Inventory, model: str
) -> None:
    with pytest.raises(AliasConflictError, match="expected version 1, got 3"):
        upkeep.promote(model, "latest", 2, expected=1)
    with pytest.raises(AliasConflictError, match="expected version 2, got 3"):
        upkeep.rollback(model, "latest", expected=2)
    with pytest.raises(ArtifactNotFoundError, match="no such alias"):
        upkeep.history(model, "champion")

    standing = read_alias(store, model, "latest")
    assert standing is not None
    assert standing.version == 3


@pytest.mark.usefixtures("store")
def test_a_difference_is_a_value_and_a_table(model: str) -> None:
    found = upkeep.diff(model, 1, "latest")

    assert (found.before, found.after) == (1, 3)
    assert found.changes == ()
    assert artifacts(f"diff-{model}")[0].data.startswith(f"{model}: 0 facts differ")


def test_garbage_is_named_first_and_removed_when_told_to(store: S3Inventory, model: str) -> None:
    policy = KeepPolicy(last=1)
    before = set(store.keys(f"{model}/"))

    planned = upkeep.collect_garbage(model, policy=policy, return_state=True)
    assert set(store.keys(f"{model}/")) == before
    done = upkeep.collect_garbage(model, delete=True, policy=policy, return_state=True)

    assert planned.is_completed()
    assert (planned.message or "").startswith("1 to remove")
    assert (done.message or "").startswith("1 removed")
    pages = {f"{model}/README.md", f"{model}/index.html"}
    kept = {key for key in before if not key.startswith(f"{model}/1/")}
    assert set(store.keys(f"{model}/")) == kept | pages
    assert all(f"{model}/1/" in each.data for each in artifacts(f"garbage-{model}"))


def test_a_model_that_cannot_be_understood_fails_the_collection_and_loses_nothing(
    store: S3Inventory, model: str
) -> None:
    store.client.put_object(
        Bucket=store.bucket, Key=f"{model}/aliases/champion.json", Body=b'{"schema_version": 2}'
    )
    before = set(store.keys(f"{model}/"))

    state = upkeep.collect_garbage(model, delete=True, policy=KeepPolicy(last=1), return_state=True)

    assert state.is_failed()
    assert "schema_version 1 or less, got 2" in (state.message or "")
    assert set(store.keys(f"{model}/")) == before


def test_a_check_completes_on_a_sound_model_and_fails_on_a_broken_one(
    store: S3Inventory, model: str
) -> None:
    sound = upkeep.fsck(model, return_state=True)
    store.client.put_object(Bucket=store.bucket, Key=f"{model}/2/onnx/model.onnx", Body=b"omnx")
    broken = upkeep.fsck(model, return_state=True)

    assert sound.is_completed()
    assert (sound.message or "").startswith("sound: 3 releases")
    assert broken.is_failed()
    assert (broken.message or "").startswith("1 error: 3 releases")
    assert any("onnx/model.onnx" in each.data for each in artifacts(f"fsck-{model}"))
