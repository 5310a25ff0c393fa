"""Commands that sweep and check the bucket."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from deployments.commands.answering import Answer, days, positive, slug, table
from tasks.domain.garbage import KeepPolicy, plan_removals
from tasks.domain.tables import plan_rows
from tasks.settings import store_settings
from tasks.storage.current_pages import refresh_pages
from tasks.storage.fsck import fsck
from tasks.storage.garbage import collect, look
from tasks.storage.s3_inventory import open_inventory

if TYPE_CHECKING:
    import argparse

    from deployments.commands.answering import Commands


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    policy = KeepPolicy()
    gc = commands.add("gc", _gc, "say what nobody needs, and remove it if told to")
    gc.add_argument("model", type=slug, nargs="?", help="this one alone; absent: all")
    gc.add_argument("--delete", action="store_true", help="remove it; without, only say so")
    gc.add_argument(
        "--last", type=positive, default=policy.last, help="versions to keep anyway (%(default)s)"
    )
    gc.add_argument("--idle-days", type=days, default=policy.idle_days, help=_IDLE)
    gc.add_argument(
        "--quarantine-days",
        type=days,
        default=policy.quarantine_days,
        help="how long reports of failed runs are kept (%(default)s)",
    )
    check = commands.add("fsck", _fsck, "read every byte of every release, and compare")
    check.add_argument("model", type=slug, nargs="?", help="this one alone; absent: all")
    check.add_argument("--repair", action="store_true", help="abort uploads that broke off")
    check.add_argument("--idle-days", type=days, default=policy.idle_days, help=_IDLE)


_IDLE = "how long a run is silent, by the store's clock, before it counts as dead (%(default)s)"


def _gc(options: argparse.Namespace) -> Answer:
    store = open_inventory(store_settings())
    policy = KeepPolicy(
        last=options.last,
        idle_days=options.idle_days,
        quarantine_days=options.quarantine_days,
    )
    plan = plan_removals(look(store, options.model), policy)
    text = f"{table(plan_rows(plan))}\n".lstrip()
    document = {"plan": plan.model_dump(mode="json"), "collected": None}
    sound = not plan.refused
    if not options.delete:
        words = f"{len(plan.removals)} to remove, {plan.size_bytes / 1e6:,.1f} MB"
        return Answer(document, f"{text}{words}; nothing was removed: say --delete", sound)
    done = collect(store, plan.removals, _progress)
    document["collected"] = done.model_dump(mode="json")
    spared = "".join(f"spared  {each.key}: {each.why}\n" for each in done.spared)
    words = f"{len(done.removed)} removed, {done.size_bytes / 1e6:,.1f} MB"
    faults = refresh_pages(store, done.models)
    return Answer(document, "\n".join([f"{text}{spared}{words}", *faults]), sound)


def _fsck(options: argparse.Namespace) -> Answer:
    report = fsck(
        open_inventory(store_settings()),
        options.model,
        repair=options.repair,
        idle_days=options.idle_days,
        on_progress=_progress,
    )
    lines = [*map(str, report.findings), report.summary()]
    return Answer(report, "\n".join(lines), report.sound)


def _progress(share: float, text: str) -> None:
    """Show a person where a long command is; a file or a pipe gets nothing."""
    if sys.stderr.isatty():
        end = "\r\x1b[K" if share >= 1 else ""
        sys.stderr.write(f"\r\x1b[K{share:4.0%} {text[:70]}{end}")
        sys.stderr.flush()
