"""Stage 5: publish what was proven, or put aside what was not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks import pages
from tasks.domain.diagnosis import Diagnosis
from tasks.domain.drift import with_drift
from tasks.domain.parity import ParityReport
from tasks.domain.recipe import Recipe
from tasks.domain.release import (
    Candidate,
    Manifest,
    Published,
    PublishedFormat,
    Release,
    ReleaseFile,
    Signing,
)
from tasks.domain.reproducibility import with_note_on_repetition
from tasks.domain.variants import published_variant
from tasks.host import host_facts
from tasks.package_versions import tool_versions
from tasks.progress import StageProgress
from tasks.report import diagnosis_markdown, parity_html, parity_markdown
from tasks.reproducers import reproducer_files
from tasks.runtime import STAGE, workshop
from tasks.seal import seal_of
from tasks.storage import publishing

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.artifact import Cost


@task(name="publish", task_run_name="publish {release.source.recipe.name}", **STAGE)
def publish(release: Release, version: int | None = None) -> Published:
    """Publish a proven release; see ``tasks.storage.publishing`` for the protocol.

    Args:
        release: What the earlier stages proved.
        version: The version to publish as; absent: the next free one.

    Raises:
        ReleaseConflictError: Somebody else has published, or claimed, ``version``.
        StorageError: The store refused; what was published before stays as it was.
    """
    shop, recipe = workshop(), release.source.recipe
    progress, seal = StageProgress(f"publish {recipe.name}"), seal_of(recipe)
    last = publishing.latest(shop.store, recipe.name)
    release = with_note_on_repetition(release, last, tool_versions())
    release = with_drift(release, last, host_facts())
    _tell_drift(release)
    files = _files(release) | pages.extra_files(release)
    published = publishing.publish(
        shop.store,
        recipe.name,
        files,
        lambda number, files: _manifest(release, number, files, seal.signing),
        owner=shop.run,
        version=version,
        on_progress=progress,
        pages_for=lambda number: pages.release_files(release, number, files),
        seal=seal,
    )
    pages.keep_current(shop.store, recipe.name)
    pages.show_links(published)
    get_run_logger().info(
        "%s: published version %d at %s",
        recipe.name,
        published.version,
        shop.store.url(published.manifest.key),
    )
    return published


@task(name="quarantine", task_run_name="quarantine {recipe.name}", **STAGE)
def quarantine(
    recipe: Recipe,
    reports: tuple[ParityReport, ...],
    reason: str,
    diagnoses: tuple[Diagnosis, ...] = (),
) -> str:
    """Keep the reports of a failed run where people can read them; return their key prefix."""
    shop = workshop()
    folder = shop.new_folder("quarantine")
    files: dict[str, Path] = {}
    for number, report in enumerate(reports, start=1):
        name = f"{number}-{report.candidate.folder}.json"
        files[name] = folder / name
        files[name].write_text(report.model_dump_json(indent=2))
    for number, diagnosis in enumerate(diagnoses, start=1):
        name = f"diagnosis-{number}.json"
        files[name] = folder / name
        files[name].write_text(diagnosis.model_dump_json(indent=2))
    files |= reproducer_files(diagnoses, shop.folder)
    show_diagnoses(recipe, diagnoses)
    files["report.html"] = folder / "report.html"
    files["report.html"].write_text(
        parity_html(recipe, reports, failed=reason, tools=tool_versions(), diagnoses=diagnoses)
    )
    prefix = publishing.quarantine(shop.store, recipe.name, shop.run, files)
    get_run_logger().error("%s: reports kept at %s", recipe.name, shop.store.url(prefix))
    return prefix


@task(name="report", task_run_name="report {recipe.name}", **STAGE)
def show_parity(recipe: Recipe, reports: tuple[ParityReport, ...]) -> None:
    """Show the parity table in Prefect, under one key for each model so that runs compare."""
    create_markdown_artifact(
        parity_markdown(recipe, reports),
        key=f"parity-{recipe.name}",
        description=f"Parity of {recipe.name} with its source framework",
    )


def show_diagnoses(recipe: Recipe, diagnoses: tuple[Diagnosis, ...]) -> None:
    """Show in Prefect what went wrong, where anything did."""
    if diagnoses:
        create_markdown_artifact(
            diagnosis_markdown(diagnoses),
            key=f"diagnosis-{recipe.name}",
            description=f"What went wrong with {recipe.name}",
        )


def _tell_drift(release: Release) -> None:
    """Warn of what has passed, and yet is far from what it was."""
    for each in release.candidates:
        for flag in each.drift.flags if each.drift else ():
            label = each.verified.artifact.format.label
            get_run_logger().warning("%s: %s: %s", release.source.recipe.name, label, flag)


def _files(release: Release) -> dict[str, Path]:
    """Return the release's files on this disk, by their paths below the release."""
    shop = workshop()
    trees = {
        each.verified.artifact.format.folder: each.verified.artifact.tree
        for each in release.candidates
    }
    trees |= {
        each.folder: each.verified.artifact.tree
        for each in release.variants
        if each.released and each.verified
    }
    trees |= {
        "golden/inputs": release.reference.inputs,
        "golden/answers": release.reference.answers,
    }
    files = {
        f"{folder}/{tree.path_of(file)}": shop.fetch(tree) / tree.path_of(file)
        for folder, tree in trees.items()
        for file in tree.files
    }
    return files | _reports(release, shop.new_folder("parity"))


def _reports(release: Release, folder: Path) -> dict[str, Path]:
    texts = {
        f"{each.verified.artifact.format.folder}.json": each.parity.model_dump_json(indent=2)
        for each in release.candidates
    }
    texts |= {
        f"{each.folder}.json": each.parity.model_dump_json(indent=2)
        for each in release.variants
        if each.released and each.parity
    }
    reports = tuple(each.parity for each in release.candidates)
    texts["report.html"] = parity_html(
        release.source.recipe, reports, release=release, tools=tool_versions()
    )
    texts["report.md"] = parity_markdown(release.source.recipe, reports)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {f"parity/{name}": folder / name for name in texts}


def _manifest(
    release: Release, number: int, files: tuple[ReleaseFile, ...], signing: Signing
) -> Manifest:
    source = release.source
    return Manifest(
        model=source.recipe.name,
        version=number,
        created=datetime.now(UTC),
        seeded=source.recipe.seeded,
        recipe=source.recipe,
        fingerprint=release.standing.fingerprint,
        changed_since=release.standing.version,
        changes=release.standing.changes,
        source_format=source.artifact.format,
        source_sha256=source.artifact.tree.sha256,
        metrics=source.metrics,
        source_notes=source.notes,
        reference_runtime=release.reference.runtime,
        probes=release.reference.probes,
        replay=release.reference.replay,
        formats=tuple(map(_published_format, release.candidates)),
        variants=tuple(map(published_variant, release.variants)),
        files=files,
        costs=_costs(release),
        tools=tool_versions(),
        host=host_facts(),
        flow_run=flow_run.id,
        flow_run_url=flow_run.ui_url,
        signing=signing,
    )


def _published_format(candidate: Candidate) -> PublishedFormat:
    artifact = candidate.verified.artifact
    return PublishedFormat(
        format=artifact.format,
        folder=artifact.format.folder,
        sha256=artifact.tree.sha256,
        size_bytes=artifact.tree.size_bytes,
        converter=candidate.converter,
        attempts=candidate.attempts,
        checks=candidate.verified.checks,
        onnx=candidate.verified.onnx,
        parity=candidate.parity,
        ms_per_row=candidate.ms_per_row,
        parity_summary=candidate.parity.summary(),
        drift=candidate.drift,
        notes=candidate.notes,
        skipped=candidate.skipped,
    )


def _costs(release: Release) -> dict[str, Cost]:
    costs = {"acquire": release.source.cost, "reference": release.reference.cost}
    for each in release.candidates:
        folder = each.verified.artifact.format.folder
        costs |= {
            f"export {folder}": each.export_cost,
            f"verify {folder}": each.verify_cost,
            f"parity {folder}": each.parity_cost,
        }
    for variant in release.variants:
        costs |= {f"{stage} {variant.folder}": cost for stage, cost in variant.costs.items()}
    return costs
