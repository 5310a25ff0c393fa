"""What the demo says at its end: one line for each model, read from what was published."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from tasks.domain.errors import ReleaseError
from tasks.domain.release import Manifest
from tasks.settings import StoreSettings
from tasks.storage.publishing import latest
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deployments.local import LocalStack
    from deployments.runs import ModelRun
    from tasks.domain.release import PublishedFormat
    from tasks.storage.store import ObjectStore

_REASON_CHARACTERS = 300
_TOP5_CLASSES = 5
_KB, _MB = 1e3, 1e6


def summary(stack: LocalStack, runs: Iterable[ModelRun]) -> Table:
    """Return the table: model, stages, parity, size, seconds, where to look."""
    table = Table(
        title="What was released",
        title_justify="left",
        caption=f"where: below {stack.browser_url or stack.bucket_url}/; of a failed run: its page",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in ("model", "stages", "parity with its source", "size", "s", "where"):
        right = column in {"size", "s"}
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    store = open_store(StoreSettings.model_validate(stack.store_settings()))
    for run in runs:
        for row in _rows(stack, run, _manifest(store, run)):
            table.add_row(*row)
        table.add_section()
    return table


def reason(run: ModelRun) -> str:
    """Return in one line why ``run`` failed."""
    text = run.message.removeprefix("Flow run encountered an exception: ")
    line = " ".join(text.split())
    return line if len(line) <= _REASON_CHARACTERS else f"{line[:_REASON_CHARACTERS]} …"


def _manifest(store: ObjectStore, run: ModelRun) -> Manifest | None:
    """Return the manifest that ``run`` published, or found up to date, if it did."""
    if run.up_to_date:
        return latest(store, run.model)
    versions = (name for name in store.folders(f"{run.model}/") if name.isdigit())
    for version in sorted(versions, key=int, reverse=True):
        with contextlib.suppress(ReleaseError):  # a version without a manifest is none
            content = store.read(f"{run.model}/{version}/manifest.json").content
            manifest = Manifest.model_validate_json(content)
            if manifest.flow_run == run.run_id:
                return manifest
    return None


def _rows(
    stack: LocalStack, run: ModelRun, manifest: Manifest | None
) -> Iterator[tuple[str | Text, ...]]:
    """Yield the cells of ``run``: a row for the source, and one for each format."""
    seconds = f"{run.seconds:.0f}"
    if manifest is None:
        page = Text("the run's page", f"link {stack.ui_url}/runs/flow-run/{run.run_id}")
        yield run.model, Text("failed", "bold red"), "nothing published", "", seconds, page
        return
    folder = f"{manifest.model}/{manifest.version}/"
    style = f"link {stack.browser_url}/{folder}" if stack.browser_url else ""
    news = "up to date, nothing was done" if run.up_to_date else ""
    yield run.model, manifest.source_format.label, news, "", seconds, Text(folder, style)
    for each in manifest.formats:
        yield "", f"→ {each.format.label}", _parity(each), _size(each.size_bytes), "", ""


def _size(size_bytes: int) -> str:
    if size_bytes < _MB:
        return f"{size_bytes / _KB:,.0f} kB"
    return f"{size_bytes / _MB:,.1f} MB"


def _parity(published: PublishedFormat) -> str:
    """Return one line on how close a format is to its source."""
    report = published.parity
    outputs = [output for probe in report.probes for output in probe.outputs]
    errors = [output.errors.max_abs for output in outputs if output.errors]
    parts = ["equal" if report.passed else "not equal"]
    if errors and max(errors) > 0:
        parts.append(f"within {max(errors):.1e}")
    ranks = [o.ranks for o in outputs if o.ranks and o.shape[-1] > _TOP5_CLASSES]
    if ranks:
        top5, rows = sum(r.top5_equal for r in ranks), sum(r.rows for r in ranks)
        parts.append(f"top-5 {top5}/{rows}")
    return ", ".join(parts)
