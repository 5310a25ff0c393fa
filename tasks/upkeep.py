"""Upkeep of what is released: aliases moved, releases compared, the bucket swept and checked."""

from __future__ import annotations

from typing import Literal

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from tasks.domain.artifact import Slug
from tasks.domain.difference import Difference, difference
from tasks.domain.errors import ArtifactNotFoundError
from tasks.domain.findings import BucketReport
from tasks.domain.garbage import GarbagePlan, KeepPolicy, plan_removals
from tasks.domain.release import Alias
from tasks.domain.tables import Rows, difference_rows, finding_rows, history_rows, plan_rows
from tasks.pages import keep_current
from tasks.progress import StageProgress
from tasks.runtime import STAGE
from tasks.settings import store_settings
from tasks.storage import aliases
from tasks.storage.fsck import fsck
from tasks.storage.garbage import Collected, collect, look
from tasks.storage.places import alias_key
from tasks.storage.publishing import read_release
from tasks.storage.s3_inventory import S3Inventory, open_inventory
from tasks.storage.versions import version_meant


@task(name="find version", task_run_name="find {model} {which}", tags=["upkeep"], **STAGE)
def find_version(model: Slug, which: str) -> int:
    """Return the version that a number, or the name of an alias, stands for.

    Raises:
        ArtifactNotFoundError: Nobody has set this alias.
    """
    return version_meant(_store(), model, which)


@task(name="where it stands", task_run_name="where {model} {alias} stands", **STAGE)
def standing(model: Slug, alias: Slug) -> int:
    """Return the version that an alias stands at; 0 if nobody has set it yet."""
    found = aliases.read_alias(_store(), model, alias)
    return found.version if found else 0


@task(name="promote", task_run_name="promote {model} {alias}", tags=["upkeep"], **STAGE)
def promote(
    model: Slug, alias: Slug, version: int, *, by: str, reason: str, expected: int | None
) -> Alias:
    """Let an alias stand at a version; see ``tasks.storage.aliases``."""
    store = _store()
    moved = aliases.promote(store, model, alias, version, by=by, reason=reason, expected=expected)
    keep_current(store, model)
    return moved


@task(name="rollback", task_run_name="roll back {model} {alias}", tags=["upkeep"], **STAGE)
def rollback(model: Slug, alias: Slug, *, by: str, reason: str, expected: int) -> Alias:
    """Undo the last move of an alias; a retry that gives the same names is no second one."""
    store = _store()
    moved = aliases.rollback(store, model, alias, by=by, reason=reason, expected=expected)
    keep_current(store, model)
    return moved


@task(name="history", task_run_name="history of {model} {alias}", tags=["upkeep"], **STAGE)
def read_history(model: Slug, alias: Slug) -> Alias:
    """Return an alias with its history.

    Raises:
        ArtifactNotFoundError: Nobody has set it yet.
    """
    store = _store()
    found = aliases.read_alias(store, model, alias)
    if found is None:
        message = f"{store.url(alias_key(model, alias))}: no such alias. Promote a version first."
        raise ArtifactNotFoundError(message)
    return found


@task(name="diff", task_run_name="diff {model} {before} {after}", tags=["upkeep"], **STAGE)
def compare(model: Slug, before: int, after: int) -> Difference:
    """Say what differs between two versions."""
    store = _store()
    return difference(read_release(store, model, before), read_release(store, model, after))


@task(name="plan removals", tags=["upkeep"], **STAGE)
def plan_garbage(model: Slug | None, policy: KeepPolicy) -> GarbagePlan:
    """Say what nobody needs; nothing is removed."""
    return plan_removals(look(_store(), model), policy)


@task(name="remove garbage", tags=["upkeep"], **STAGE)
def remove_garbage(plan: GarbagePlan) -> Collected:
    """Remove what was planned, but what somebody needs by now."""
    store = _store()
    done = collect(store, plan.removals, StageProgress("collect garbage"))
    for model in done.models:
        keep_current(store, model)
    for each in done.spared:
        get_run_logger().warning("%s: spared: %s", each.key, each.why)
    return done


@task(name="fsck", tags=["upkeep"], **STAGE)
def check_bucket(model: Slug | None, *, repair: bool, idle_days: float) -> BucketReport:
    """Read every byte of every release and compare it with its manifest."""
    report = fsck(
        _store(),
        model,
        repair=repair,
        idle_days=idle_days,
        on_progress=StageProgress(f"fsck {model or 'bucket'}"),
    )
    for each in report.errors:
        get_run_logger().error("%s", each)
    return report


Shown = Literal["history", "diff", "garbage", "fsck"]


@task(name="show", task_run_name="show {what} {name}", tags=["report"], **STAGE)
def show(
    what: Shown, name: str, value: Alias | Difference | GarbagePlan | BucketReport, words: str
) -> None:
    """Show a value as a table in Prefect, under one key so that runs compare."""
    rows = _rows(value)
    key = f"{what}-{name}"
    if rows:
        create_table_artifact(rows, key=key, description=words)
    else:
        create_markdown_artifact(words, key=key, description=words)


def _rows(value: Alias | Difference | GarbagePlan | BucketReport) -> Rows:
    match value:
        case Alias():
            return history_rows(value)
        case Difference():
            return difference_rows(value)
        case GarbagePlan():
            return plan_rows(value)
        case BucketReport():
            return finding_rows(value)


def _store() -> S3Inventory:
    return open_inventory(store_settings())
