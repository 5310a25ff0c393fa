"""From a recipe to a published release."""

from __future__ import annotations

from prefect import flow
from prefect.states import Completed

from flows.proving import prove
from flows.varying import make_variants
from tasks.acquire import acquire, answer_probes
from tasks.catalogue import load_recipe
from tasks.domain.artifact import ModelFormat
from tasks.domain.release import Published, Release
from tasks.publish import publish
from tasks.runtime import open_workshop, prepare_children, tag_run
from tasks.settings import local_settings
from tasks.standing import UP_TO_DATE, compare_with_latest


@flow(name="release-model", flow_run_name="release {model}", log_prints=False)
def release_model(model: str, version: int | None = None, *, force: bool = False) -> Published:
    """Acquire a model, export it to every target, prove each export, publish them all.

    ::

        recipe ─ acquire ─┬─ reference ──────────┬────────────────────────┐
                          └─ export ─ verify ─ parity ─ export ─ verify ─ parity ─ publish
                             ╰───── ONNX ───────╯       ╰──── TensorFlow ──────╯
                                     └─ float16, bfloat16, int8, as far as asked for

    Each export is tried with one converter after another until one is proven; what is
    not proven is never published. TensorFlow is made from ONNX, and compared with the source.
    Where what would be released now is what ``latest`` names, nothing is done: the run ends as
    "Up to date", and its result is that version.

    Args:
        model: Name of a recipe in the catalogue.
        version: Publish as this version, whether or not anything has changed; absent: the next
            free one.
        force: Do it even if nothing has changed.
    """
    recipe = load_recipe(model, local_settings().catalogue)
    tag_run(recipe)
    asked = f"version {version} was asked for" if version else "it was forced" if force else ""
    standing = compare_with_latest(recipe, asked)
    if standing.published:
        # who calls the flow gets the state's data, not the state
        return Completed(  # type: ignore[return-value]
            name=UP_TO_DATE, message=f"{model}: {standing.summary()}", data=standing.published
        )
    with open_workshop():
        prepare_children(recipe)
        source = acquire(recipe)
        reference = answer_probes.submit(source)  # runs beside the first export
        candidates = []
        parent = source.artifact
        for target in (ModelFormat.ONNX, ModelFormat.SAVED_MODEL):
            if target in recipe.targets:
                candidates.append(prove(recipe, parent, target, reference))
                parent = candidates[-1].verified.artifact
        return publish(
            Release(
                standing=standing,
                source=source,
                reference=reference.result(),
                candidates=tuple(candidates),
                variants=make_variants(source, candidates[0], reference.result()),
            ),
            version=version,
        )
