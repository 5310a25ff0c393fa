"""Upkeep of the releases: who stands where, what differs, what may go, what is broken."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from tasks import upkeep
from tasks.domain.artifact import Slug
from tasks.domain.difference import Difference
from tasks.domain.findings import BucketReport
from tasks.domain.garbage import GarbagePlan, KeepPolicy
from tasks.domain.release import Alias


@flow(name="promote", flow_run_name="promote {model} {alias} to {version}")
def promote(
    model: Slug,
    alias: Slug,
    version: int | str,
    reason: str = "",
    expected: int | None = None,
) -> Alias:
    """Let an alias stand at a version that is whole.

    Args:
        model: Whose alias.
        alias: ``latest``, ``candidate``, ``champion`` or another name.
        version: Where to: a number, or the name of another alias.
        reason: Why, for the history.
        expected: Refuse unless it stands there now (0: nowhere yet).
    """
    number = upkeep.find_version(model, str(version))
    moved = upkeep.promote(model, alias, number, by=_who(), reason=reason, expected=expected)
    upkeep.show("history", f"{model}-{alias}", moved, f"{alias} of {model}: {moved.version}")
    return moved


@flow(name="rollback", flow_run_name="roll back {model} {alias}")
def rollback(model: Slug, alias: Slug, reason: str = "", expected: int | None = None) -> Alias:
    """Undo the last move of an alias.

    Where it stands is read once: a task that is tried again cannot roll back twice.

    Args:
        model: Whose alias.
        alias: Its name.
        reason: Why, for the history.
        expected: The version to get away from; absent: the one that it stands at now.
    """
    seen = upkeep.standing(model, alias) if expected is None else expected
    moved = upkeep.rollback(model, alias, by=_who(), reason=reason, expected=seen)
    upkeep.show("history", f"{model}-{alias}", moved, f"{alias} of {model}: {moved.version}")
    return moved


@flow(name="history", flow_run_name="history of {model} {alias}")
def history(model: Slug, alias: Slug = "latest") -> Alias:
    """List the moves of an alias, the youngest first."""
    found = upkeep.read_history(model, alias)
    upkeep.show("history", f"{model}-{alias}", found, f"{alias} of {model}: {found.version}")
    return found


@flow(name="diff", flow_run_name="diff {model} {before} {after}")
def diff(model: Slug, before: int | str, after: int | str) -> Difference:
    """Say what differs between two versions: numerics, sizes, operators, opset, tools, recipe.

    Args:
        model: Whose versions.
        before: A number, or the name of an alias.
        after: A number, or the name of an alias.
    """
    numbers = [upkeep.find_version(model, str(each)) for each in (before, after)]
    found = upkeep.compare(model, *numbers)
    words = f"{model}: {len(found.changes)} facts differ, {found.unchanged} are alike"
    upkeep.show("diff", model, found, words)
    return found


@flow(name="collect-garbage")
def collect_garbage(
    model: Slug | None = None,
    delete: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters have names
    policy: KeepPolicy = KeepPolicy(),  # noqa: B008 - it is frozen
) -> State[GarbagePlan]:
    """Say what nobody needs any more, and remove it if told to.

    Args:
        model: This one alone; absent: the whole bucket.
        delete: Remove it; without, it is only said.
        policy: What is kept although no alias and no hold asks for it.
    """
    plan = upkeep.plan_garbage(model, policy)
    words = f"{len(plan.removals)} to remove, {plan.size_bytes / 1e6:,.1f} MB"
    upkeep.show("garbage", model or "bucket", plan, words)
    if delete:
        done = upkeep.remove_garbage(plan)
        words = f"{len(done.removed)} removed, {done.size_bytes / 1e6:,.1f} MB"
    if plan.refused:
        return Failed(message=f"{words}; left alone: {' '.join(plan.refused)}", data=plan)
    return Completed(message=words, data=plan)


@flow(name="fsck")
def fsck(
    model: Slug | None = None,
    repair: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters have names
    idle_days: float = 7,
) -> State[BucketReport]:
    """Read every byte of every release; it fails if anything is not what its manifest says.

    Args:
        model: This one alone; absent: the whole bucket.
        repair: Abort uploads that began ``idle_days`` ago or earlier.
        idle_days: How old an unfinished upload must be, by the store's clock.
    """
    report = upkeep.check_bucket(model, repair=repair, idle_days=idle_days)
    upkeep.show("fsck", model or "bucket", report, report.summary())
    if not report.sound:
        return Failed(message=report.summary(), data=report)
    return Completed(message=report.summary(), data=report)


def _who() -> str:
    return f"flow run {flow_run.id}"
