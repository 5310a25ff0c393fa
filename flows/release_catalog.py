"""Release many models, each in a run of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import exponential_backoff
from pydantic import PositiveInt

from flows.model_runs import UnderWay, ended, join_or_start, seconds_between_looks, started_by
from tasks.catalogue import load_catalogue, load_recipe
from tasks.domain.value import Value
from tasks.restarts import refuse_more_starts
from tasks.selection import parse_selection
from tasks.settings import local_settings
from tasks.standing import UP_TO_DATE, find_up_to_date

if TYPE_CHECKING:
    from tasks.domain.recipe import Recipe
    from tasks.domain.release import Standing

_MOST_RUNS = 3
"""Runs for one model, where its process, its worker or its machine dies."""
_NAMES_SAID = 20


class Outcome(Value):
    """How the run of one model ended."""

    model: str
    state: str
    message: str
    seconds: float

    @property
    def completed(self) -> bool:
        """Whether the model is released as its recipe says, by this run or by an earlier one."""
        return self.state == "Completed" or self.up_to_date

    @property
    def up_to_date(self) -> bool:
        """Whether there was nothing to do."""
        return self.state == UP_TO_DATE


def _run_name() -> str:
    asked = flow_run.parameters
    models = asked.get("models")
    return f"catalogue {', '.join(models) if models is not None else asked.get('select', 'all')}"


@flow(name="release-catalog", flow_run_name=_run_name)
async def release_catalog(
    models: tuple[str, ...] | None = None,
    at_once: PositiveInt = 2,
    *,
    force: bool = False,
    select: str = "all",
) -> State[tuple[Outcome, ...]]:
    """Release each of the models through its deployment; one that fails stops no other.

    Models that are up to date are found here, and get no run. A model whose run is under way,
    started by whomever, gets no second one. A catalogue run that is tried again goes on: the
    runs that it had started are its own, whether under way or done.

    Args:
        models: Names of recipes; absent: the whole catalogue.
        at_once: How many runs may be under way at the same time.
        force: Release those too in which nothing has changed.
        select: Which of them: `stale`, `tag:vision`, `name:resnet*`, `all`, combined by `and` (or
            a space), `or` (or a comma), `not` and brackets.
    """
    refuse_more_starts()
    recipes, standings = await asyncio.to_thread(_choose, models, select, force=force)
    run, under_way = str(flow_run.id), UnderWay()
    places, every = asyncio.Semaphore(at_once), seconds_between_looks(at_once)
    async with get_client() as client:
        mine = await started_by(client, run) if (flow_run.run_count or 1) > 1 else {}

    async def in_turn(model: str) -> Outcome:
        if model in standings and model not in mine:
            message = f"{model}: {standings[model].summary()}"
            return Outcome(model=model, state=UP_TO_DATE, message=message, seconds=0)
        async with places:
            begun = mine[model].id if model in mine else None
            return await release_one(model, run, under_way, force=force, begun=begun, every=every)

    turns = await asyncio.gather(*(in_turn(each.name) for each in recipes), return_exceptions=True)
    return await _conclude(
        tuple(_outcome(each.name, turn) for each, turn in zip(recipes, turns, strict=True))
    )


async def _conclude(outcomes: tuple[Outcome, ...]) -> State[tuple[Outcome, ...]]:
    """Show how each model's run ended, and return how the whole did."""
    await acreate_table_artifact(
        [outcome.model_dump() for outcome in outcomes],
        key="catalogue",
        description="How each model's run ended",
    )
    failed = [outcome.model for outcome in outcomes if not outcome.completed]
    if failed:
        names = ", ".join(failed[:_NAMES_SAID]) + (" …" if len(failed) > _NAMES_SAID else "")
        words = f"{len(failed)} of {len(outcomes)} models failed: {names}"
        return Failed(message=words, data=outcomes)
    return Completed(message=_summary(outcomes), data=outcomes)


def _choose(
    models: tuple[str, ...] | None, select: str, *, force: bool
) -> tuple[list[Recipe], dict[str, Standing]]:
    """Return the recipes that are meant, and how those stand that need no run.

    The store is asked about no model that names and tags rule out.

    Raises:
        ConfigurationError: The expression makes no sense, or names what is not there.
    """
    folder = local_settings().catalogue
    selection = parse_selection(select)
    recipes = load_catalogue(folder) if models is None else [load_recipe(m, folder) for m in models]
    selection.check(recipes)
    possible = [recipe for recipe in recipes if selection.might_fit(recipe)]
    matters = any(selection.fits(each, True) != selection.fits(each, False) for each in possible)  # noqa: FBT003 - either
    ask = matters or not force
    standings = find_up_to_date(possible) if ask else {}
    chosen = [each for each in possible if selection.fits(each, each.name not in standings)]
    return chosen, {} if force else standings


@task(
    task_run_name="release {model}",
    cache_policy=NO_CACHE,
    # the server may be away for longer than its client asks again; its run goes on meanwhile
    retries=3,
    retry_delay_seconds=exponential_backoff(10),
)
async def release_one(
    model: str,
    catalogue_run: str,
    under_way: UnderWay,
    *,
    force: bool = False,
    begun: UUID | None = None,
    every: float = 2.0,
) -> Outcome:
    """Run ``release-model/default`` for one model to its end, whatever that is.

    A run that crashed, so whose process is gone, and that the server does not start again, is
    followed by another.
    """
    async with get_client() as client:
        number = 0
        while True:
            if begun is None:
                joined = await join_or_start(client, model, catalogue_run, under_way, force=force)
                begun = joined.id
            run = await ended(client, begun, every)
            number += 1
            if not (run.state and run.state.is_crashed()) or number == _MOST_RUNS:
                break
            begun = None
    state = run.state
    return Outcome(
        model=model,
        state=state.name or state.type.value if state else "Unknown",
        message=(state.message or "") if state else "",
        seconds=round(run.total_run_time.total_seconds(), 1),
    )


def _outcome(model: str, turn: Outcome | BaseException) -> Outcome:
    """Return how a model's turn ended; whoever was told to stop stops."""
    if isinstance(turn, Exception):
        message = f"how its run ended is not known ({type(turn).__name__}: {turn})"
        return Outcome(model=model, state="Unknown", message=message, seconds=0)
    if isinstance(turn, BaseException):
        raise turn
    return turn


def _summary(outcomes: tuple[Outcome, ...]) -> str:
    if not outcomes:
        return "no model is meant, so there was nothing to do"
    same = sum(outcome.up_to_date for outcome in outcomes)
    if not same:
        return f"all {len(outcomes)} models released"
    return f"{len(outcomes) - same} of {len(outcomes)} models released, {same} up to date"
