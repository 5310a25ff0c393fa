"""Where a release comes from: an in-toto statement with SLSA's provenance as its predicate.

Sources: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://slsa.dev/spec/v1.0/provenance. Field names are theirs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from tasks.domain.sources import Download
from tasks.domain.value import Value, parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.domain.recipe import Recipe
    from tasks.domain.release import ReleaseFile

BUILD_TYPE = "urn:onnx-conveyor:flow:release-model:1"
"""What ``externalParameters`` mean; described in docs/trust.md."""
BUILDER = "urn:onnx-conveyor:builder"
_SELF = "onnx-conveyor"


class _Attested(Value):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ResourceDescriptor(_Attested):
    """A file, a download or a package."""

    name: str | None = None
    uri: str | None = None
    digest: dict[str, str] | None = None


class BuildDefinition(_Attested):
    """What was asked for, and what went into it."""

    build_type: str = BUILD_TYPE
    external_parameters: dict[str, Any]
    internal_parameters: dict[str, Any]
    resolved_dependencies: tuple[ResourceDescriptor, ...]


class Builder(_Attested):
    """What did it."""

    id: str = BUILDER
    version: dict[str, str]


class BuildMetadata(_Attested):
    """In which run, and when."""

    invocation_id: str | None = None
    started_on: datetime
    finished_on: datetime


class RunDetails(_Attested):
    """The run."""

    builder: Builder
    metadata: BuildMetadata


class Provenance(_Attested):
    """SLSA's predicate, version 1."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Statement(_Attested):
    """``provenance.json``."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(
        "https://in-toto.io/Statement/v1", alias="_type"
    )
    subject: tuple[ResourceDescriptor, ...]
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = "https://slsa.dev/provenance/v1"
    predicate: Provenance

    def text(self) -> str:
        """Write the statement as it is published; times in UTC, as the specification asks."""
        return self.model_dump_json(indent=2, by_alias=True, exclude_none=True)

    def digests(self) -> dict[str, str]:
        """Return SHA-256 of each subject, by its path in the release."""
        return {str(each.name): (each.digest or {}).get("sha256", "") for each in self.subject}


def statement_of(  # noqa: PLR0913 - each is a fact of its own
    recipe: Recipe,
    files: tuple[ReleaseFile, ...],
    *,
    parameters: Mapping[str, Any],
    tools: Mapping[str, str],
    host: Mapping[str, str],
    flow_run: str | None,
    started: datetime,
    finished: datetime,
) -> Statement:
    """Say where a release comes from.

    Args:
        recipe: What was made.
        files: Every file that was made.
        parameters: The flow's parameters.
        tools: Version of each package that took part.
        host: The machine.
        flow_run: Id of the flow run.
        started: When it began.
        finished: When its files were in the store.
    """
    packages = (_package(*each) for each in sorted(tools.items()) if each[0] != _SELF)
    return Statement(
        subject=tuple(
            ResourceDescriptor(name=each.path, digest={"sha256": each.sha256}) for each in files
        ),
        predicate=Provenance(
            build_definition=BuildDefinition(
                external_parameters={"recipe": recipe.name, "parameters": dict(parameters)},
                internal_parameters={"host": dict(host)},
                resolved_dependencies=(*map(_download, downloads_of(recipe)), *packages),
            ),
            run_details=RunDetails(
                builder=Builder(
                    version={name: tools[name] for name in (_SELF, "prefect") if name in tools}
                ),
                metadata=BuildMetadata(
                    invocation_id=flow_run,
                    started_on=started.astimezone(UTC),
                    finished_on=finished.astimezone(UTC),
                ),
            ),
        ),
    )


def downloads_of(recipe: Recipe) -> tuple[Download, ...]:
    """Return every download that a recipe names, wherever in it, in the order of the fields."""
    return tuple(dict.fromkeys(parts_of(recipe, Download)))


def _download(download: Download) -> ResourceDescriptor:
    # a folder's digest is computed as Go does it, which in-toto's digest sets call dirHash1
    # (https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md)
    pinned = download.digest
    kind = "dirHash1" if download.uri.endswith("/") else pinned.algorithm
    return ResourceDescriptor(uri=download.uri, digest={kind: pinned.hexadecimal})


def _package(name: str, version: str) -> ResourceDescriptor:
    """Name a package by its purl (https://github.com/package-url/purl-spec, type ``pypi``)."""
    plain = name.lower().replace("_", "-")
    return ResourceDescriptor(name=name, uri=f"pkg:pypi/{plain}@{version.replace('+', '%2B')}")
