"""Commands about versions and the aliases that stand at them."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

from deployments.commands.answering import Answer, positive, slug, table
from tasks.domain.difference import difference
from tasks.domain.errors import ArtifactNotFoundError
from tasks.domain.tables import alias_rows, difference_rows, history_rows, version_rows
from tasks.settings import store_settings
from tasks.storage import aliases, holds
from tasks.storage.current_pages import refresh_pages
from tasks.storage.places import LATEST, alias_key
from tasks.storage.publishing import read_release
from tasks.storage.s3_inventory import S3Inventory, open_inventory
from tasks.storage.versions import list_versions, version_meant

if TYPE_CHECKING:
    import argparse

    from deployments.commands.answering import Commands
    from tasks.domain.release import Alias


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    versions = commands.add("versions", _versions, "list the versions of a model")
    versions.add_argument("model", type=slug)
    listed = commands.add("aliases", _aliases, "say where the aliases of a model stand")
    listed.add_argument("model", type=slug)
    moved = commands.add("history", _history, "list the moves of an alias")
    moved.add_argument("model", type=slug)
    moved.add_argument("alias", type=slug, nargs="?", default=LATEST)
    diff = commands.add("diff", _diff, "say what differs between two versions of a model")
    diff.add_argument("model", type=slug)
    diff.add_argument("before", help="a version, or an alias")
    diff.add_argument("after", help="a version, or an alias")
    _register_moves(commands)
    _register_holds(commands)


def _register_moves(commands: Commands) -> None:
    promote = commands.add("promote", _promote, "let an alias stand at a version")
    rollback = commands.add("rollback", _rollback, "undo the last move of an alias")
    for each in (promote, rollback):
        each.add_argument("model", type=slug)
        each.add_argument("alias", type=slug, help="latest, candidate, champion or another name")
        each.add_argument(
            "--expected", type=int, help="refuse unless it stands at this version (0: nowhere)"
        )
        each.add_argument("--reason", default="", help="why, for the history")
        each.add_argument("--by", default=None, help="who, for the history; absent: you")
    promote.add_argument("version", help="a version, or an alias that stands there")


def _register_holds(commands: Commands) -> None:
    hold = commands.add("hold", _hold, "keep a version from being collected")
    unhold = commands.add("unhold", _unhold, "hold a version no longer")
    for each in (hold, unhold):
        each.add_argument("model", type=slug)
        each.add_argument("version", type=positive)
    hold.add_argument("--reason", required=True, help="why, for those who find it later")
    hold.add_argument("--by", default=None, help="who; absent: you")


def _store() -> S3Inventory:
    return open_inventory(store_settings())


def _who(options: argparse.Namespace) -> str:
    return options.by or getpass.getuser()


def _versions(options: argparse.Namespace) -> Answer:
    found = list_versions(_store(), options.model)
    return Answer([each.model_dump(mode="json") for each in found], table(version_rows(found)))


def _aliases(options: argparse.Namespace) -> Answer:
    found = aliases.read_aliases(_store(), options.model)
    document = {name: alias.model_dump(mode="json") for name, alias in found.items()}
    return Answer(document, table(alias_rows(found)) or f"{options.model} has no alias")


def _history(options: argparse.Namespace) -> Answer:
    store = _store()
    alias = aliases.read_alias(store, options.model, options.alias)
    if alias is None:
        where = store.url(alias_key(options.model, options.alias))
        raise ArtifactNotFoundError(f"{where}: no such alias. See 'conveyor aliases'.")
    return Answer(
        [move.model_dump(mode="json") for move in alias.moves], table(history_rows(alias))
    )


def _diff(options: argparse.Namespace) -> Answer:
    store = _store()
    before, after = (
        read_release(store, options.model, version_meant(store, options.model, text))
        for text in (options.before, options.after)
    )
    found = difference(before, after)
    same = f"{found.unchanged} facts are alike"
    return Answer(found, f"{table(difference_rows(found))}\n{same}".lstrip())


def _promote(options: argparse.Namespace) -> Answer:
    store = _store()
    moved = aliases.promote(
        store,
        options.model,
        options.alias,
        version_meant(store, options.model, options.version),
        by=_who(options),
        reason=options.reason,
        expected=options.expected,
    )
    return _stands(options, moved)


def _rollback(options: argparse.Namespace) -> Answer:
    moved = aliases.rollback(
        _store(),
        options.model,
        options.alias,
        by=_who(options),
        reason=options.reason,
        expected=options.expected,
    )
    return _stands(options, moved)


def _stands(options: argparse.Namespace, alias: Alias) -> Answer:
    before = alias.history[0].version if alias.history else None
    text = f"{options.model}: {options.alias} stands at version {alias.version}"
    faults = refresh_pages(_store(), [options.model])
    return Answer(alias, "\n".join([f"{text} (before: {before or 'nowhere'})", *faults]))


def _hold(options: argparse.Namespace) -> Answer:
    held = holds.hold(
        _store(), options.model, options.version, by=_who(options), reason=options.reason
    )
    return Answer(held, f"{held.model}/{held.version} is held by {held.by}: {held.reason}")


def _unhold(options: argparse.Namespace) -> Answer:
    held = holds.release_hold(_store(), options.model, options.version)
    return Answer(held, f"{held.model}/{held.version} is held no longer (was: {held.reason})")
