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
from tasks.settings import local_settings


class Outcome(Value):
    """How the run of one model ended."""

    model: str
    state: str
    message: str
    seconds: float

    @property
    def completed(self) -> bool:
        """Whether the model was released."""
        return self.state == "Completed"


@flow(name="release-catalog")
async def release_catalog(
    models: tuple[str, ...] | None = None, at_once: int = 2
) -> State[tuple[Outcome, ...]]:
    """Release each of ``models`` through its deployment; one that fails stops no other.

    Args:
        models: Names of recipes; absent: the whole catalogue.
        at_once: How many runs may be under way at the same time.
    """
    folder = local_settings().catalogue
    recipes = load_catalogue(folder) if models is None else [load_recipe(m, folder) for m in models]
    places = asyncio.Semaphore(at_once)

    async def in_turn(model: str) -> Outcome:
        async with places:
            return await release_one(model)

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
    return Completed(message=f"all {len(outcomes)} models released", data=outcomes)


@task(task_run_name="release {model}", cache_policy=NO_CACHE)
async def release_one(model: str) -> Outcome:
    """Run ``release-model/default`` for one model to its end, whatever that is.

    A restarted catalogue run finds the run that it had started, by its idempotency key.
    """
    run = await arun_deployment(
        "release-model/default",
        parameters={"model": model},
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
