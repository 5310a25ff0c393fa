"""The bucket for people: a version's pages, the pages above it, and links in Prefect."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ReleaseError
from tasks.domain.release import ReleaseFile
from tasks.isolation import Call, Family
from tasks.report.links import links_markdown
from tasks.report.release_pages import Extras, release_pages
from tasks.report.snippet import LABELS, snippet
from tasks.runners import FAMILIES
from tasks.runtime import workshop
from tasks.settings import store_settings
from tasks.storage.current_pages import refresh_pages
from tasks.storage.digest import sha256_of
from tasks.storage.publishing import read_release

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tasks.domain.release import Published, Release
    from tasks.storage.store import ObjectStore

GRAPH = "graph.svg"


def extra_files(release: Release) -> dict[str, Path]:
    """Return the picture of the graph and the names of the classes, by their paths.

    What cannot be made is left out, with a warning: it proves nothing, so it stops nothing.
    """
    folder = workshop().new_folder("extra")
    files: dict[str, Path] = {}
    for name, make in ((GRAPH, _draw), (LABELS, _write_labels)):
        try:
            if make(release, folder / name):
                files[name] = folder / name
        except ReleaseError as error:
            get_run_logger().warning("%s Published without %s.", error, name)
    return files


def release_files(release: Release, version: int, files: Mapping[str, Path]) -> dict[str, Path]:
    """Return the version's own pages, by their paths.

    Args:
        release: What is published.
        version: Its number.
        files: Every other file of the release, by its path.
    """
    shop = workshop()
    listed = [
        ReleaseFile(path=path, sha256=sha256_of(file), size_bytes=file.stat().st_size)
        for path, file in files.items()
    ]
    golden = shop.fetch(release.reference.inputs)
    program = snippet(release.source.recipe, golden, labelled=LABELS in files)
    picture = files[GRAPH].read_text() if GRAPH in files else ""
    folder = shop.new_folder("pages")
    made = {}
    for name, text in release_pages(release, version, listed, Extras(program, picture)).items():
        made[name] = folder / name
        made[name].write_text(text)
    return made


def keep_current(store: ObjectStore, model: str) -> None:
    """Bring the pages of the model and of the bucket up to what is published.

    The release is whole without them, so that a store that fails now fails no run.
    """
    for fault in refresh_pages(store, [model]):
        get_run_logger().warning("%s", fault)


def show_links(published: Published) -> None:
    """Show in Prefect where the release lies, with links that open without credentials."""
    shop, settings = workshop(), store_settings()
    manifest = read_release(shop.store, published.model, published.version)
    text = links_markdown(
        shop.store,
        manifest,
        seconds=settings.link_seconds,
        ends=datetime.now(UTC) + timedelta(seconds=settings.link_seconds),
        browser_url=settings.browser_url,
    )
    create_markdown_artifact(
        text,
        key=f"release-{published.model}",
        description=f"Where version {published.version} of {published.model} lies",
    )


def _draw(release: Release, target: Path) -> bool:
    from tasks.steps.draw_graph import DrawGraphRequest, draw_graph

    recipe = release.source.recipe
    onnx = next(
        (
            each.verified.artifact
            for each in release.candidates
            if each.verified.artifact.format is ModelFormat.ONNX
        ),
        None,
    )
    if onnx is None:
        return False
    shop = workshop()
    request = DrawGraphRequest(name=recipe.name, model=shop.fetch(onnx.tree), target=target)
    call = Call("draw the graph", recipe.name, FAMILIES[ModelFormat.ONNX], recipe.limits)
    shop.children.call(draw_graph, request, call)
    return True


def _write_labels(release: Release, target: Path) -> bool:
    from tasks.steps.labels import LabelsRequest, imagenet_labels

    recipe = release.source.recipe
    match recipe.labels:
        case None:
            return False
        case "imagenet-1k":
            call = Call("name the classes", recipe.name, Family.TORCH, recipe.limits)
            labels = workshop().children.call(imagenet_labels, LabelsRequest(), call).value.labels
        case labels:
            pass
    target.write_text("".join(f"{' '.join(label.split())}\n" for label in labels))
    return True
