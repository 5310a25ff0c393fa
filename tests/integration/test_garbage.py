"""Collecting garbage on a real server: what stays, and what a crash or a race leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.domain.errors import (
    AliasConflictError,
    ArtifactNotFoundError,
    ReleaseConflictError,
)
from tasks.domain.garbage import GarbagePlan, KeepPolicy, plan_removals
from tasks.storage.aliases import promote, read_alias, read_aliases, resolve, rollback
from tasks.storage.garbage import Collected, collect, look
from tasks.storage.holds import hold, read_holds, release_hold
from tasks.storage.publishing import publish
from tasks.storage.removal import remove_version
from tasks.storage.s3_inventory import S3Inventory, open_inventory
from tasks.storage.whole import require_whole
from tests.support.publisher import manifest_maker, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deployments.s3_server import S3Server
    from tasks.domain.release import Published

AT_ONCE = KeepPolicy(last=1, idle_days=0, quarantine_days=0)
CONTENTS = {"onnx/model.onnx": b"onnx", "tf/saved_model.pb": b"graph", "parity/onnx.json": b"{}"}


@pytest.fixture(scope="module")
def store(s3_server: S3Server) -> S3Inventory:
    return open_inventory(s3_server.settings)


@pytest.fixture
def model() -> str:
    return f"model-{os.urandom(4).hex()}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_files(tmp_path_factory.mktemp("files"), CONTENTS)


@pytest.fixture
def release(store: S3Inventory, model: str, files: dict[str, Path]) -> Callable[[], Published]:
    """Lend a function that publishes the next version."""
    return lambda: publish_next(store, model, files)


def publish_next(
    store: S3Inventory, model: str, files: dict[str, Path], owner: str = ""
) -> Published:
    return publish(store, model, files, manifest_maker(model), owner=owner or os.urandom(4).hex())


def begin_and_die(store: S3Inventory, model: str, files: dict[str, Path], owner: str) -> None:
    """Claim a number and upload, but do not commit."""

    def die(_share: float, text: str) -> None:
        if text.startswith("read back"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(store, model, files, manifest_maker(model), owner=owner, on_progress=die)


def plan(store: S3Inventory, model: str, policy: KeepPolicy = AT_ONCE) -> GarbagePlan:
    return plan_removals(look(store, model), policy)


def gc(store: S3Inventory, model: str, policy: KeepPolicy = AT_ONCE) -> Collected:
    return collect(store, plan(store, model, policy).removals)


def versions_in(store: S3Inventory, model: str) -> set[int]:
    """Return the numbers of which any object is left, hidden ones included."""
    names = {key.split("/")[1] for key in store.keys(f"{model}/")}
    return {int(name) for name in names if name.isdecimal()}


def overwrite(store: S3Inventory, key: str, content: bytes) -> None:
    store.client.put_object(Bucket=store.bucket, Key=key, Body=content)


class Past(NamedTuple):
    """What happened to a model so far."""

    released: int
    unfinished: bool
    moves: list[tuple[str, int]]
    held: set[int]


PASTS = st.builds(
    Past,
    released=st.integers(1, 5),
    unfinished=st.booleans(),
    moves=st.lists(
        st.tuples(st.sampled_from(["latest", "champion"]), st.integers(1, 5)), max_size=4
    ),
    held=st.sets(st.integers(1, 5), max_size=2),
)


def happen(store: S3Inventory, model: str, files: dict[str, Path], past: Past) -> None:
    for _ in range(past.released):
        publish_next(store, model, files)
    if past.unfinished:
        begin_and_die(store, model, files, "dead")
    for alias, version in past.moves:
        if version <= past.released:
            promote(store, model, alias, version, by="ann")
    for version in past.held & set(range(1, past.released + 1)):
        hold(store, model, version, by="ann", reason="a customer runs it")


def needed_of(store: S3Inventory, model: str) -> set[int]:
    needed = set(read_holds(store, model))
    for alias in read_aliases(store, model).values():
        needed.add(alias.version)
        if before := alias.before():
            needed.add(before.version)
    return needed


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(past=PASTS, last=st.integers(1, 3))
def test_nothing_needed_is_removed_and_a_second_collection_finds_nothing(
    store: S3Inventory, files: dict[str, Path], past: Past, last: int
) -> None:
    model = f"model-{os.urandom(4).hex()}"
    happen(store, model, {"parity/onnx.json": files["parity/onnx.json"]}, past)
    policy = KeepPolicy(last=last, idle_days=0, quarantine_days=0)
    newest = set(range(max(past.released - last, 0) + 1, past.released + 1))
    needed = needed_of(store, model) | newest

    gc(store, model, policy)

    assert versions_in(store, model) == needed
    for version in needed:
        require_whole(store, model, version)
    for name in read_aliases(store, model):
        assert resolve(store, model, name)
    assert plan(store, model, policy).removals == ()
    assert {int(name) for name in store.folders(f"{model}/") if name.isdecimal()} == needed
    assert publish_next(store, model, files).version > max(needed)


def test_a_plan_removes_nothing(
    store: S3Inventory, model: str, release: Callable[[], Published]
) -> None:
    for _ in range(3):
        release()
    promote(store, model, "latest", 3, by="ann")
    before = sorted(store.keys(""))

    result = plan(store, model)

    assert [each.version for each in result.removals] == [1]
    assert result.size_bytes > sum(map(len, CONTENTS.values()))
    assert {each.why for each in result.kept} == {
        "a rollback of latest leads there",
        "alias latest",
    }
    assert sorted(store.keys("")) == before


def test_a_held_version_stays_until_it_is_held_no_longer(
    store: S3Inventory, model: str, release: Callable[[], Published]
) -> None:
    for _ in range(3):
        release()
    first = hold(store, model, 1, by="ann", reason="a customer runs it")
    second = hold(store, model, 1, by="bob", reason="other")

    kept = gc(store, model)
    release_hold(store, model, 1)
    gone = gc(store, model)

    assert first == second
    assert kept.removed == ()
    assert [each.key for each in gone.removed] == [f"{model}/1/"]
    with pytest.raises(ArtifactNotFoundError):
        release_hold(store, model, 1)
    with pytest.raises(ArtifactNotFoundError):
        hold(store, model, 1, by="ann", reason="too late")


def test_a_number_whose_run_may_be_alive_is_kept_and_its_run_publishes(
    store: S3Inventory, model: str, files: dict[str, Path]
) -> None:
    begin_and_die(store, model, files, "slow")

    result = gc(store, model, KeepPolicy())

    assert result.removed == ()
    assert publish_next(store, model, files, owner="slow").version == 1


def test_a_run_taken_for_dead_that_comes_back_takes_the_next_number(
    store: S3Inventory, model: str, files: dict[str, Path]
) -> None:
    publish_next(store, model, files)
    begin_and_die(store, model, files, "slow")
    collected = gc(store, model)

    published = publish_next(store, model, files, owner="slow")

    assert [each.kind for each in collected.removed] == ["number"]
    assert published.version == 2
    require_whole(store, model, 2)


def test_a_run_taken_for_dead_before_its_commit_publishes_nothing_half(
    store: S3Inventory, model: str, files: dict[str, Path]
) -> None:
    def collect_then(_share: float, text: str) -> None:
        if text.startswith("read back parity"):
            gc(store, model)

    with pytest.raises(ReleaseConflictError, match="given up as garbage"):
        publish(store, model, files, manifest_maker(model), owner="slow", on_progress=collect_then)

    assert list(store.keys(f"{model}/")) == []
    assert publish_next(store, model, files, owner="slow").version == 1


class _StoppedError(Exception):
    """A collection that stops where a test wants it to."""


@pytest.mark.parametrize("stop_after", ["marked", "decided", "deleted .claim.json", "never"])
def test_a_run_taken_for_dead_in_the_moment_of_its_commit_publishes_nothing_half(
    store: S3Inventory, model: str, files: dict[str, Path], stop_after: str
) -> None:
    def stop(step: str) -> None:
        if step == stop_after:
            raise _StoppedError

    class Late(S3Inventory):
        """Somebody collects between the publisher's last look and its commit."""

        def create(self, key: str, content: bytes, content_type: str = "application/json") -> bool:
            if key.endswith("manifest.json"):
                with suppress(_StoppedError):
                    remove_version(store, model, 1, lambda: None, published=False, on_step=stop)
            return super().create(key, content, content_type)

    late = Late(store.client, store.bucket)
    with pytest.raises(ReleaseConflictError, match="given up as garbage"):
        publish(late, model, files, manifest_maker(model), owner="slow")

    assert f"{model}/1/manifest.json" not in set(store.keys(f"{model}/"))
    gc(store, model)
    assert list(store.keys(f"{model}/")) == []


def test_a_number_that_was_published_after_the_plan_was_made_is_spared(
    store: S3Inventory, model: str, files: dict[str, Path]
) -> None:
    begin_and_die(store, model, files, "slow")
    made = plan(store, model)
    publish_next(store, model, files, owner="slow")

    result = collect(store, made.removals)

    assert [each.why for each in result.spared] == ["was published meanwhile"]
    require_whole(store, model, 1)


@pytest.mark.parametrize("how", ["promote", "hold", "rollback"])
def test_a_version_that_somebody_came_to_need_after_the_plan_was_made_is_spared(
    store: S3Inventory, model: str, release: Callable[[], Published], how: str
) -> None:
    for _ in range(3):
        release()
    before = store.read(f"{model}/1/manifest.json").content
    made = plan(store, model)
    assert [each.version for each in made.removals] == [1]
    if how == "promote":
        promote(store, model, "champion", 1, by="ann")
    elif how == "hold":
        hold(store, model, 1, by="ann", reason="wait")
    else:
        rollback(store, model, "latest", by="ann")
        rollback(store, model, "latest", by="ann")

    result = collect(store, made.removals)

    assert result.removed == ()
    (spared,) = result.spared
    assert spared.key == f"{model}/1/"
    assert store.read(f"{model}/1/manifest.json").content == before
    assert f"{model}/1/.removal.json" not in set(store.keys(f"{model}/"))


class _Collecting(S3Inventory):
    """A collection deletes the manifest between a promoter's look at it and its move."""

    def create(self, key: str, content: bytes, content_type: str = "application/json") -> bool:
        if "/aliases/" in key or "/holds/" in key:
            remove_version(
                S3Inventory(self.client, self.bucket), key.split("/", maxsplit=1)[0], 1, nobody
            )
        return super().create(key, content, content_type)


def nobody() -> None:
    return None


def test_who_promotes_or_holds_what_is_removed_in_that_moment_is_told_and_nothing_dangles(
    store: S3Inventory, model: str, release: Callable[[], Published]
) -> None:
    release()
    release()
    collecting = _Collecting(store.client, store.bucket)

    with pytest.raises(AliasConflictError, match="was removed as garbage"):
        promote(collecting, model, "champion", 1, by="ann")
    assert read_alias(store, model, "champion") is None
    assert versions_in(store, model) == {2}


def test_who_holds_what_is_removed_in_that_moment_is_told_and_no_hold_is_left(
    store: S3Inventory, model: str, release: Callable[[], Published]
) -> None:
    release()
    release()

    with pytest.raises(AliasConflictError, match="was removed while you held it"):
        hold(_Collecting(store.client, store.bucket), model, 1, by="ann", reason="mine")

    assert read_holds(store, model) == {}


STEPS = (
    "marked", "manifest deleted", "decided", "files deleted", "mark deleted", "claim deleted",
)  # fmt: skip


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1), ids=STEPS)
def test_a_collection_killed_at_any_step_leaves_no_version_that_looks_whole_and_the_next_finishes(
    s3_server: S3Server,
    store: S3Inventory,
    model: str,
    release: Callable[[], Published],
    step: int,
) -> None:
    for _ in range(3):
        release()
    command = [sys.executable, "-m", "tests.support.collector", model, str(step)]

    victim = subprocess.run(command, env=os.environ | s3_server.environment(), check=False)

    assert victim.returncode == -signal.SIGKILL
    if f"{model}/1/manifest.json" in set(store.keys(f"{model}/")):
        require_whole(store, model, 1)
    else:
        with pytest.raises(ArtifactNotFoundError):
            promote(store, model, "champion", 1, by="ann")
    require_whole(store, model, 2)
    gc(store, model, KeepPolicy(last=1, idle_days=0 if STEPS[step - 1] == "mark deleted" else 7))
    assert versions_in(store, model) == {2, 3}
    assert set(store.folders(f"{model}/")) == {"2", "3", "aliases"}


@pytest.mark.parametrize("step", [1, 2], ids=STEPS[:2])
def test_what_a_killed_collection_began_is_taken_back_if_it_is_needed_by_then(
    s3_server: S3Server,
    store: S3Inventory,
    model: str,
    release: Callable[[], Published],
    step: int,
) -> None:
    for _ in range(3):
        release()
    content = store.read(f"{model}/1/manifest.json").content
    command = [sys.executable, "-m", "tests.support.collector", model, str(step)]
    subprocess.run(command, env=os.environ | s3_server.environment(), check=False)
    overwrite(
        store,
        f"{model}/holds/1.json",
        json.dumps(
            {"model": model, "version": 1, "by": "ann", "reason": "", "held": "2031-01-01T00:00Z"}
        ).encode(),
    )

    made = plan(store, model)
    result = collect(store, made.removals)

    assert [each.kind for each in made.removals] == ["mark"]
    assert result.removed == ()
    assert store.read(f"{model}/1/manifest.json").content == content
    assert plan(store, model).removals == ()


def test_two_collections_at_once_remove_each_version_once_and_nothing_else(
    store: S3Inventory, model: str, release: Callable[[], Published]
) -> None:
    for _ in range(6):
        release()
    removals = plan(store, model).removals

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: collect(store, removals), range(3)))

    gc(store, model)
    assert versions_in(store, model) == {5, 6}
    assert {each.version for result in results for each in result.removed} <= {1, 2, 3, 4}


@pytest.mark.parametrize("what", ["aliases/champion.json", "1/manifest.json", "holds/2.json"])
def test_a_document_that_this_program_cannot_read_protects_its_whole_model(
    store: S3Inventory, model: str, release: Callable[[], Published], what: str
) -> None:
    for _ in range(3):
        release()
    overwrite(store, f"{model}/{what}", b'{"schema_version": 2}')

    result = plan(store, model)

    assert result.removals == ()
    (refused,) = result.refused
    assert refused.startswith(f"s3://models/{model}/{what}: was written by a newer version")


def test_times_inside_documents_decide_nothing(
    store: S3Inventory, model: str, files: dict[str, Path]
) -> None:
    publish_next(store, model, files)
    for year in (1970, 2199):
        begin_and_die(store, model, files, f"run of {year}")
        number = max(versions_in(store, model))
        claim = json.loads(store.read(f"{model}/{number}/.claim.json").content)
        claim["claimed"] = f"{year}-01-01T00:00:00Z"
        overwrite(store, f"{model}/{number}/.claim.json", json.dumps(claim).encode())

    patient, at_once = plan(store, model, KeepPolicy()), plan(store, model)

    assert patient.removals == ()
    assert [each.version for each in at_once.removals] == [2, 3]


def test_the_leftovers_of_runs_are_removed_and_the_rest_of_the_bucket_stays(
    store: S3Inventory, model: str, files: dict[str, Path]
) -> None:
    publish_next(store, model, files)
    run = os.urandom(4).hex()
    for key in (f"quarantine/{model}/{run}/report.html", f"work/{run}/onnx/model.onnx"):
        store.create(key, b"{}")
    store.create(f"{model}/notes.txt", b"{}")
    store.create(f"{model}/7/of-unknown-origin", b"{}")
    store.client.create_multipart_upload(Bucket=store.bucket, Key=f"{model}/1/big")

    young = plan_removals(look(store), KeepPolicy())
    of_model = gc(store, model)
    of_all = [each for each in plan_removals(look(store), AT_ONCE).removals if run in each.key]
    collect(store, of_all)

    assert not [each for each in young.removals if model in each.key or run in each.key]
    assert {each.kind for each in of_model.removed} == {"quarantine", "upload"}
    assert [each.kind for each in of_all] == ["work"]
    assert not [key for key in store.keys("") if run in key]
    assert list(store.uploads(f"{model}/")) == []
    assert {f"{model}/notes.txt", f"{model}/7/of-unknown-origin"} <= set(store.keys(f"{model}/"))


def test_a_run_that_still_writes_working_files_keeps_its_number(
    store: S3Inventory, model: str, files: dict[str, Path]
) -> None:
    run = f"run-{os.urandom(4).hex()}"
    begin_and_die(store, model, files, run)
    store.create(f"work/{run}/onnx/model.onnx", b"{}")
    upload = store.client.create_multipart_upload(Bucket=store.bucket, Key=f"{model}/1/big")

    (version,) = look(store, model).models[0].versions

    youngest = max(each.modified for each in store.entries(f"work/{run}/"))
    (begun,) = (each.begun for each in store.uploads(f"{model}/"))
    assert version.state == "unfinished"
    assert version.written == max(youngest, begun)
    assert upload["UploadId"]
    gc(store, model)
    store.remove(f"work/{run}/")
