"""Where a release lies, as Prefect shows it: links that open without credentials, for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.report.figures import size
from tasks.report.parity_table import plain
from tasks.report.release_pages import INDEX, README

if TYPE_CHECKING:
    from datetime import datetime

    from tasks.domain.release import Manifest
    from tasks.storage.store import ObjectStore

_PAGES = (README, INDEX, "parity/report.html", "graph.svg")
_DAY, _HOUR = 24 * 3600, 3600


def links_markdown(
    store: ObjectStore,
    manifest: Manifest,
    *,
    seconds: int,
    ends: datetime,
    browser_url: str | None,
) -> str:
    """Render the list of what a reader wants first: the pages, and the ONNX files.

    Args:
        store: Where the release lies.
        manifest: The release's.
        seconds: How long the links open; 0: addresses are given instead.
        ends: When the links end.
        browser_url: Where people browse the bucket, if anywhere.
    """
    folder = f"{manifest.model}/{manifest.version}/"
    lines = [f"## {manifest.model}, version {manifest.version}", ""]
    if manifest.seeded:
        lines += ["> **RANDOM WEIGHTS**: this proves a graph, and is of no other use.", ""]
    lines += [f"`{store.url(f'{folder}manifest.json')}`", ""]
    if browser_url:
        lines += [f"[in the bucket's browser]({browser_url.rstrip('/')}/{folder})", ""]
    sizes = {file.path: size(file.size_bytes) for file in manifest.files}
    chosen = [path for path in _PAGES if path in sizes]
    chosen += sorted(path for path in sizes if path.startswith("onnx/"))
    lines += ["| file | size |", "|---|---|"]
    for path in chosen:
        key = f"{folder}{path}"
        place = f"[{plain(path)}]({store.link(key, seconds)})" if seconds else f"`{store.url(key)}`"
        lines.append(f"| {place} | {sizes[path]} |")
    if seconds:
        lines += ["", f"The links open until **{ends:%Y-%m-%d %H:%M} UTC** ({_life(seconds)})."]
        lines.append(
            "They open for whoever has them, without credentials; links inside a page do not."
        )
    return "\n".join([*lines, ""])


def _life(seconds: int) -> str:
    for unit, name in ((_DAY, "day"), (_HOUR, "hour"), (60, "minute"), (1, "second")):
        if seconds % unit == 0:
            number = seconds // unit
            return f"{number} {name}{'s' if number > 1 else ''}"
    raise AssertionError
