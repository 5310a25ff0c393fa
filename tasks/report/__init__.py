"""What a run proved, for people: a table for Prefect, and a page to read in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.report.diagnosis import diagnosis_markdown
from tasks.report.parity_table import parity_markdown
from tasks.report.templates import template
from tasks.report.view import page_view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.domain.diagnosis import Diagnosis
    from tasks.domain.parity import ParityReport
    from tasks.domain.recipe import Recipe
    from tasks.domain.release import Release

__all__ = ["diagnosis_markdown", "parity_html", "parity_markdown"]


def parity_html(
    recipe: Recipe,
    reports: Sequence[ParityReport],
    *,
    release: Release | None = None,
    failed: str = "",
    tools: Mapping[str, str] | None = None,
    diagnoses: Sequence[Diagnosis] = (),
) -> str:
    """Render one self-contained page: no scripts, nothing fetched, light and dark.

    Args:
        recipe: What was asked for.
        reports: Every comparison of the run, in order, those that failed too.
        release: What the run proved; absent where it failed before it was whole.
        failed: Why nothing is published, in words; empty where something is.
        tools: Version of each package that took part.
        diagnoses: What is known of each candidate that failed.
    """
    return template("page.html").render(
        page_view(recipe, reports, release, failed, tools or {}, diagnoses)
    )
