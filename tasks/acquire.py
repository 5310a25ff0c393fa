"""Stage 1: come by the source model, and by its answers to the probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from tasks.domain.artifact import ModelArtifact, ModelFormat, StoredTree
from tasks.domain.errors import AcquisitionError, VerificationError
from tasks.domain.recipe import Pictures, Recipe
from tasks.domain.release import ProbeInfo, Reference, SourceModel
from tasks.fetch import fetch
from tasks.fetch.wording import redacted
from tasks.isolation import Call, Family
from tasks.noise import float64_answers, true_labels
from tasks.progress import StageProgress
from tasks.replay import compare_with_last, replay_golden
from tasks.resume import resumable
from tasks.runners import FAMILIES
from tasks.runtime import STAGE, workshop
from tasks.settings import local_settings
from tasks.sources import HELD_OUT, SOURCES, AcquireRequest
from tasks.storage.digest import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.sources import Download
    from tasks.replay import LastGolden


@task(name="acquire", task_run_name="acquire {recipe.name}", **STAGE)
@resumable
def acquire(recipe: Recipe) -> SourceModel:
    """Train or download the model that ``recipe`` describes, and store it.

    Raises:
        AcquisitionError: It could not be trained or downloaded.
        IsolationError: The framework's process died or went over its limits.
        StorageError: The result could not be stored.
        RemoteError: It is trained on a GPU worker, and that gave no answer.
    """
    from tasks.gpu_stages import train_elsewhere

    if (trained := train_elsewhere(recipe)) is not None:
        return trained
    shop = workshop()
    progress = StageProgress(f"acquire {recipe.name}")
    wanted = _downloads(recipe)
    downloads = tuple(_fetch(each, recipe) for each in wanted)
    digests = tuple(filter(None, map(_to_pin, wanted, downloads)))
    folder = shop.new_folder("source")
    kind = SOURCES[recipe.source.kind]
    call = Call("acquire", recipe.name, kind.family, recipe.limits, AcquisitionError, progress)
    request = AcquireRequest(recipe=recipe, downloads=downloads, folder=folder)
    reply = shop.children.call(kind.acquire, request, call)
    progress.finish()
    source = SourceModel(
        recipe=recipe,
        artifact=ModelArtifact(
            model=recipe.name,
            format=recipe.source_format,
            signature=recipe.signature.plain,
            tree=shop.keep(folder, "source"),
        ),
        metrics=reply.value.metrics,
        notes=(*reply.value.notes, *digests),
        cost=reply.cost,
    )
    _tell(source)
    return source


@task(
    name="reference",
    task_run_name="reference {source.recipe.name}",
    # it runs in a thread, where Prefect's own time limit interrupts nothing; the child's does
    **(STAGE | {"timeout_seconds": None}),
)
@resumable
def answer_probes(source: SourceModel) -> Reference:
    """Make the recipe's probes, and let the source framework answer them.

    Raises:
        AcquisitionError: A picture could not be downloaded, or a probe not be made.
        VerificationError: The source model does not answer as the recipe declares.
    """
    from tasks.steps.answer import AnswerRequest, answer

    shop, recipe = workshop(), source.recipe
    model = shop.fetch(source.artifact.tree)
    probes, inputs, golden = _make_probes(source, model)
    folder, names = shop.new_folder("reference"), tuple(each.name for each in probes)
    request = AnswerRequest(
        recipe=recipe,
        format=source.artifact.format,
        model=model,
        probes=shop.fetch(inputs),
        names=names,
        device="cpu",
        folder=folder,
    )
    family = FAMILIES[source.artifact.format]
    progress = StageProgress(f"{recipe.name}: reference")
    call = Call("reference", recipe.name, family, recipe.limits, VerificationError, progress)
    reply = shop.children.call(answer, request, call)
    progress.finish()
    return Reference(
        probes=probes,
        inputs=inputs,
        answers=shop.keep(folder, "golden/answers"),
        runtime=reply.value.runtime,
        replay=compare_with_last(recipe, golden, folder) if golden else None,
        cost=reply.cost,
        float64=float64_answers(recipe, model, shop.fetch(inputs), names),
        labels=true_labels(recipe, model, shop.fetch(inputs)),
    )


def _make_probes(
    source: SourceModel, model: Path
) -> tuple[tuple[ProbeInfo, ...], StoredTree, LastGolden | None]:
    from tasks.steps.probes import ProbesRequest, make_probes

    shop, recipe = workshop(), source.recipe
    real = recipe.parity.real
    files = real.files if isinstance(real, Pictures) else ()
    held_out = model / HELD_OUT
    folder = shop.new_folder("probes")
    request = ProbesRequest(
        recipe=recipe,
        pictures=tuple(_fetch(each, recipe) for each in files),
        held_out=held_out if held_out.is_file() else None,
        folder=folder,
    )
    call = Call("probes", recipe.name, Family.LIGHT, recipe.limits, AcquisitionError)
    probes = shop.children.call(make_probes, request, call).value.probes
    probes += _beside_splits(recipe, model, folder, probes)
    golden = replay_golden(recipe, probes, folder)
    if golden and golden.probe:
        probes += (golden.probe,)
    return probes, shop.keep(folder, "golden/inputs"), golden


def _beside_splits(
    recipe: Recipe, model: Path, folder: Path, probes: tuple[ProbeInfo, ...]
) -> tuple[ProbeInfo, ...]:
    """Write rows beside the splits of a scikit-learn model's trees, if it has any."""
    from tasks.steps.split_rows import SplitRowsRequest, make_split_rows

    if recipe.source_format is not ModelFormat.SKLEARN:
        return ()
    # enough to start from; of the probes that follow, some hold what no training has seen
    names = tuple(each.name for each in probes[:2])
    request = SplitRowsRequest(recipe=recipe, model=model, probes=folder, names=names)
    call = Call("probes", recipe.name, Family.SKLEARN, recipe.limits, AcquisitionError)
    reply = workshop().children.call(make_split_rows, request, call)
    return (reply.value.probe,) if reply.value.probe else ()


def _downloads(recipe: Recipe) -> tuple[Download, ...]:
    source = recipe.source
    many: tuple[Download, ...] = getattr(source, "downloads", ())
    one: Download | None = getattr(source, "download", None)
    return many or ((one,) if one else ())


def _fetch(download: Download, recipe: Recipe) -> Path:
    uri = redacted(download.uri)
    get_run_logger().info("%s: fetching %s", recipe.name, uri)
    progress = StageProgress(f"{recipe.name}: fetch {uri.rstrip('/').rpartition('/')[2]}")
    return fetch(download, local_settings().cache, progress.of_bytes())


def _to_pin(download: Download, path: Path) -> str | None:
    """Return the SHA-256 of what came in words, if the recipe does not pin that itself."""
    if download.sha256:
        return None
    return (
        f"{redacted(download.uri)} came with {download.digest}, as its publisher says, and with "
        f"sha256 {sha256_of(path)}"
    )


def _tell(source: SourceModel) -> None:
    recipe, log = source.recipe, get_run_logger()
    if recipe.seeded:
        log.warning(
            "%s: RANDOM WEIGHTS (seed %s): this release proves a graph and is of no other use",
            recipe.name,
            getattr(recipe.source, "seed", 0),
        )
    figures = ", ".join(f"{name} {value:.4f}" for name, value in source.metrics.items())
    size = source.artifact.tree.size_bytes / 1e6
    log.info("%s: acquired, %.1f MB%s", recipe.name, size, f", {figures}" if figures else "")
    for note in source.notes:
        log.info("%s: %s", recipe.name, note)
