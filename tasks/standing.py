"""Stage 0: is there anything to do? No framework, no child process, three requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from tasks.domain.errors import ReleaseError
from tasks.domain.waivers import expired, today_in_utc
from tasks.fingerprint import fingerprint_of
from tasks.settings import store_settings
from tasks.storage import standing as in_store
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from tasks.domain.recipe import Recipe
    from tasks.domain.release import Standing

UP_TO_DATE = "Up to date"
"""The name of the state in which a run ends that had nothing to do."""

_AT_ONCE = 8
"""Models asked for at the same time; boto3 keeps ten connections."""


def compare_with_latest(recipe: Recipe, asked: str = "") -> Standing:
    """Hold what ``latest`` names against what would be released now, and show how it stands.

    Args:
        recipe: What to release.
        asked: Why it is to be released even if nothing has changed, in words; empty: it is not.

    Raises:
        ConfigurationError: The recipe names a converter that there is not.
        StorageError: The store could not be asked.
    """
    store = open_store(store_settings())
    found = in_store.standing(store, recipe.name, fingerprint_of(recipe))
    if found.published and asked:
        reason = f"nothing changed; {asked}"
        found = found.model_copy(update={"published": None, "changes": (reason,)})
    get_run_logger().info("%s: %s", recipe.name, found.summary())
    create_markdown_artifact(
        _markdown(recipe, found, store.url(f"{recipe.name}/{found.version}/")),
        key=f"changes-{recipe.name}",
        description=f"What changed in {recipe.name} since its latest release",
    )
    return found


def find_up_to_date(recipes: Sequence[Recipe], today: date | None = None) -> dict[str, Standing]:
    """Return how each model stands that is up to date, by name, asking for several at once.

    A model about which the store, or its recipe, gives an error is not among them: its own
    run will meet the error and say it. Nor is one with a waiver that has expired.

    Args:
        recipes: Of which models.
        today: The day by which waivers expire; absent: today's in UTC.
    """
    store, day = open_store(store_settings()), today or today_in_utc()

    def ask(recipe: Recipe) -> Standing | None:
        if expired(recipe.waivers, day):
            return None
        try:
            return in_store.standing(store, recipe.name, fingerprint_of(recipe))
        except ReleaseError:
            return None

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="standing") as pool:
        standings = list(pool.map(ask, recipes))
    return {
        recipe.name: each
        for recipe, each in zip(recipes, standings, strict=True)
        if each is not None and each.published
    }


def _markdown(recipe: Recipe, standing: Standing, url: str) -> str:
    if standing.version is None:
        return f"## {recipe.name}\n\nNothing is released yet.\n"
    if standing.published:
        return f"## {recipe.name}\n\n{standing.summary()}: `{url}`\n"
    changes = "\n".join(f"- `{each.replace('`', chr(39))}`" for each in standing.changes)
    return f"## What changed in {recipe.name} since version {standing.version}\n\n{changes}\n"
