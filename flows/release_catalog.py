"""Release many models, each in a run of its own."""

from __future__ import annotations

import asyncio

from prefect import flow, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.deployments import arun_deployment
from prefect.runtime import flow_run, task_run
from prefect.states import Completed, Failed

from tasks.catalogue import load_catalogue, load_recipe
from tasks.domain.value import Value
from tasks.restarts import refuse_more_starts
from tasks.settings import local_settings
from tasks.standing import UP_TO_DATE, find_up_to_date


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


@flow(name="release-catalog")
async def release_catalog(
    models: tuple[str, ...] | None = None,
    at_once: int = 2,
    *,
    force: bool = False,
) -> State[tuple[Outcome, ...]]:
    """Release each of ``models`` through its deployment; one that fails stops no other.

    Models that are up to date are found here, and get no run.

    Args:
        models: Names of recipes; absent: the whole catalogue.
        at_once: How many runs may be under way at the same time.
        force: Release those too in which nothing has changed.
    """
    refuse_more_starts()
    folder = local_settings().catalogue
    recipes = load_catalogue(folder) if models is None else [load_recipe(m, folder) for m in models]
    standings = {} if force else await asyncio.to_thread(find_up_to_date, recipes)
    places = asyncio.Semaphore(at_once)

    async def in_turn(model: str) -> Outcome:
        if model in standings:
            message = f"{model}: {standings[model].summary()}"
            return Outcome(model=model, state=UP_TO_DATE, message=message, seconds=0)
        async with places:
            return await release_one(model, force=force)

    outcomes = tuple(await asyncio.gather(*(in_turn(recipe.name) for recipe in recipes)))
    await acreate_table_artifact(
        [outcome.model_dump() for outcome in outcomes],
        key="catalogue",
        description="How each model's run ended",
    )
    failed = [outcome.model for outcome in outcomes if not outcome.completed]
    if failed:
        words = f"{len(failed)} of {len(outcomes)} models failed: {', '.join(failed)}"
        return Failed(message=words, data=outcomes)
    return Completed(message=_summary(outcomes), data=outcomes)


@task(task_run_name="release {model}", cache_policy=NO_CACHE)
async def release_one(model: str, *, force: bool = False) -> Outcome:
    """Run ``release-model/default`` for one model to its end, whatever that is.

    A restarted catalogue run finds the run that it had started, by its idempotency key.
    """
    run = await arun_deployment(
        "release-model/default",
        parameters={"model": model, "force": force},
        flow_run_name=f"release {model}",
        idempotency_key=f"{flow_run.id}:{model}:{task_run.run_count}",
        poll_interval=2,
    )
    state = run.state
    return Outcome(
        model=model,
        state=state.name or state.type.value if state else "Unknown",
        message=(state.message or "") if state else "",
        seconds=round(run.total_run_time.total_seconds(), 1),
    )


def _summary(outcomes: tuple[Outcome, ...]) -> str:
    same = sum(outcome.up_to_date for outcome in outcomes)
    if not same:
        return f"all {len(outcomes)} models released"
    return f"{len(outcomes) - same} of {len(outcomes)} models released, {same} up to date"
