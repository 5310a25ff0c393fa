"""The pages of a model and of the bucket: small, and made anew with each release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.value import Value
from tasks.report.figures import share, size
from tasks.report.release_pages import INDEX, README
from tasks.report.templates import template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.domain.release import Manifest


class VersionRow(Value):
    """What a model's page says of one version; without a date, its manifest is not readable."""

    version: int
    date: str = ""
    seeded: bool = False
    formats: tuple[tuple[str, str, str, str], ...] = ()
    """Label, converter, size and the share of the tolerance that is used, of each format."""
    description: str = ""
    licence: str = ""


class ModelView(Value):
    """What a model's page says."""

    model: str
    versions: tuple[VersionRow, ...]
    """The newest first."""
    older: int
    """How many numbers in use are not shown."""
    aliases: dict[str, int]

    @property
    def newest(self) -> VersionRow | None:
        """The newest version that can be read."""
        return next((each for each in self.versions if each.date), None)

    def aliases_of(self, version: int) -> list[str]:
        """Return the names that stand for a version."""
        return sorted(name for name, standing in self.aliases.items() if standing == version)


def version_row(manifest: Manifest) -> VersionRow:
    """Return what a model's page says of the version of ``manifest``."""
    return VersionRow(
        version=manifest.version,
        date=f"{manifest.created:%Y-%m-%d %H:%M} UTC",
        seeded=manifest.seeded,
        formats=tuple(
            (each.format.label, each.converter, size(each.size_bytes), share(each.parity.budget))
            for each in manifest.formats
        ),
        description=manifest.recipe.description,
        licence=manifest.recipe.licence,
    )


def model_pages(view: ModelView) -> dict[str, str]:
    """Return both pages of a model by their names."""
    return {
        README: template("model.md").render(view=view),
        INDEX: template("model.html").render(view=view),
    }


def root_pages(models: Sequence[str]) -> dict[str, str]:
    """Return both pages of the bucket by their names; they list folders and read nothing else."""
    return {
        README: template("root.md").render(models=models),
        INDEX: template("root.html").render(models=models),
    }
