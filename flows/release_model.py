"""From a recipe to a published release."""

from __future__ import annotations

from prefect import flow

from flows.proving import prove
from tasks.acquire import acquire, answer_probes
from tasks.catalogue import load_recipe
from tasks.domain.artifact import ModelFormat
from tasks.domain.release import Published, Release
from tasks.publish import publish
from tasks.runtime import open_workshop, prepare_children, tag_run
from tasks.settings import local_settings


@flow(name="release-model", flow_run_name="release {model}", log_prints=False)
def release_model(model: str, version: int | None = None) -> Published:
    """Acquire a model, export it to every target, prove each export, publish them all.

    ::

        recipe ─ acquire ─┬─ reference ──────────┬────────────────────────┐
                          └─ export ─ verify ─ parity ─ export ─ verify ─ parity ─ publish
                             ╰───── ONNX ───────╯       ╰──── TensorFlow ──────╯

    Each export is tried with one converter after another until one is proven; what is
    not proven is never published. TensorFlow is made from ONNX, and compared with the source.

    Args:
        model: Name of a recipe in the catalogue.
        version: Publish as this version; absent: the next free one.
    """
    recipe = load_recipe(model, local_settings().catalogue)
    with open_workshop():
        tag_run(recipe)
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
            Release(source=source, reference=reference.result(), candidates=tuple(candidates)),
            version=version,
        )
