"""What the demo says at its end: one line for each model, read from what was published."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from tasks.domain.errors import ReleaseError
from tasks.domain.release import Manifest
from tasks.settings import StoreSettings
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deployments.local import LocalStack
    from deployments.runs import ModelRun
    from tasks.domain.parity import ParityReport
    from tasks.domain.release import PublishedFormat
    from tasks.storage.store import ObjectStore

_REASON_CHARACTERS = 300


def summary(stack: LocalStack, runs: Iterable[ModelRun]) -> Table:
    """Return the table: model, stages, parity, size, seconds, where to look."""
    table = Table(title="What was released", title_justify="left", show_lines=True)
    for column in ("model", "stages", "parity with its source", "size", "seconds", "where"):
        right = column in {"size", "seconds"}
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    store = open_store(StoreSettings.model_validate(_store_settings(stack)))
    for run in runs:
        manifest = _manifest(store, run)
        table.add_row(run.model, *_cells(stack, run, manifest))
    return table


def reason(run: ModelRun) -> str:
    """Return in one line why ``run`` failed."""
    text = run.message.removeprefix("Flow run encountered an exception: ")
    line = " ".join(text.split("\n")[0].split())
    return line if len(line) <= _REASON_CHARACTERS else f"{line[:_REASON_CHARACTERS]} …"


def _store_settings(stack: LocalStack) -> dict[str, str]:
    prefix = "CONVEYOR_STORE_"
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in stack.environment().items()
        if name.startswith(prefix)
    }


def _manifest(store: ObjectStore, run: ModelRun) -> Manifest | None:
    """Return the manifest that ``run`` published, if it did."""
    versions = (name for name in store.folders(f"{run.model}/") if name.isdigit())
    for version in sorted(versions, key=int, reverse=True):
        with contextlib.suppress(ReleaseError):  # a version without a manifest is none
            content = store.read(f"{run.model}/{version}/manifest.json").content
            manifest = Manifest.model_validate_json(content)
            if manifest.flow_run == run.run_id:
                return manifest
    return None


def _cells(
    stack: LocalStack, run: ModelRun, manifest: Manifest | None
) -> tuple[str | Text, str | Text, str, str, str]:
    page = f"{stack.ui_url}/runs/flow-run/{run.run_id}"
    seconds = f"{run.seconds:.0f}"
    if manifest is None:
        return Text("failed", "bold red"), Text("nothing published", "red"), "", seconds, page
    source = manifest.source_format.label
    stages = " → ".join([source, *(f"{each.format.label}" for each in manifest.formats)])
    parity = "\n".join(map(_parity, manifest.formats))
    size = "\n".join(f"{each.size_bytes / 1e6:,.1f} MB" for each in manifest.formats)
    folder = f"{manifest.model}/{manifest.version}/"
    where = f"{stack.browser_url}/{folder}" if stack.browser_url else store_url(stack, folder)
    return stages, parity, size, seconds, where


def store_url(stack: LocalStack, key: str) -> str:
    """Return ``s3://bucket/key`` in the stack's bucket."""
    return f"s3://{stack.environment()['CONVEYOR_STORE_BUCKET']}/{key}"


def _parity(published: PublishedFormat) -> str:
    """Return one line on how close a format is to its source."""
    report = published.parity
    outputs = [output for probe in report.probes for output in probe.outputs]
    errors = [output.errors for output in outputs if output.errors]
    verdict = "equal" if report.passed else "not equal"
    rows = sum(probe.rows for probe in report.probes)
    parts = [f"{published.format.label}: {verdict} on {rows} rows"]
    if errors:
        parts.append(f"largest difference {max(each.max_abs for each in errors):.1e}")
    parts.extend(_top(report))
    return ", ".join(parts)


def _top(report: ParityReport) -> list[str]:
    ranks = [o.ranks for probe in report.probes for o in probe.outputs if o.ranks]
    rows = sum(each.rows for each in ranks)
    return [f"top-5 {sum(each.top5_equal for each in ranks)}/{rows}"] if rows else []
