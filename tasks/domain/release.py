"""What is published: a manifest that names every file, and an alias that names a manifest."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from tasks.domain.artifact import (
    Attempt,
    Cost,
    ModelArtifact,
    ModelFormat,
    OnnxFacts,
    Sha256,
    Slug,
    StoredFile,
    StoredTree,
    VerifiedArtifact,
)
from tasks.domain.drift import Drift, Replay
from tasks.domain.fingerprint import Fingerprint
from tasks.domain.parity import ParityReport
from tasks.domain.passes import SkippedPass
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.domain.variants import PublishedVariant, VariantOutcome

_CHANGES_SAID = 3


class SourceModel(Value):
    """The model as it was trained or downloaded."""

    recipe: Recipe
    artifact: ModelArtifact
    metrics: dict[str, float] = {}
    """Such as ``accuracy`` on held-out rows, between 0 and 1."""
    notes: tuple[str, ...] = ()
    cost: Cost


class ProbeInfo(Value):
    """One set of input rows on which models are compared."""

    name: str
    rows: PositiveInt
    about: str
    """Where the rows come from, in words."""


class Float64(Value):
    """What the source answers in float64, by which rounding is told from faults."""

    words: str
    """Who answered how many rows, or why none."""
    answers: StoredTree | None = None
    """``<probe>.npz`` each, with the numbers of the rows; they are not published."""


class Reference(Value):
    """The probes, and what the source framework answers to them."""

    probes: tuple[ProbeInfo, ...]
    inputs: StoredTree
    """``<probe>.npz`` each."""
    answers: StoredTree
    """``<probe>.npz`` each."""
    runtime: str
    replay: Replay | None = None
    """The last release's golden samples, answered again; None where nothing was released."""
    cost: Cost
    float64: Float64 = Float64(words="")
    labels: tuple[int | float | str, ...] = ()
    """The true answers to the rows of the probe ``held-out``, where they are known."""


class Candidate(Value):
    """A conversion, its verification, and its comparison with the source."""

    verified: VerifiedArtifact
    converter: str
    attempts: tuple[Attempt, ...]
    """Every converter tried, the winner last."""
    parity: ParityReport
    ms_per_row: NonNegativeFloat | None = None
    drift: Drift | None = None
    """How it compares with the last release; None where that has no such format."""
    notes: tuple[str, ...] = ()
    skipped: tuple[SkippedPass, ...] = ()
    """Optimising passes that would have changed its answers, or could not be run."""
    export_cost: Cost
    verify_cost: Cost
    parity_cost: Cost


class Published(Value):
    """What publishing answers."""

    model: Slug
    version: PositiveInt
    manifest: StoredFile
    latest: bool
    """Whether the alias ``latest`` was moved to this version (not, if a newer one stood there)."""
    size_bytes: NonNegativeInt


class Standing(Value):
    """What stands released under ``latest``, held against what would be released now."""

    fingerprint: Fingerprint
    """What would be released now."""
    version: PositiveInt | None = None
    """The version that ``latest`` names; None where nothing is released."""
    changes: tuple[str, ...] = ()
    """Why that version is not good enough, in words."""
    files: NonNegativeInt = 0
    """How many of its files were found in the store as they were published."""
    published: Published | None = None
    """That version, where it is up to date; None where there is something to do."""

    def summary(self) -> str:
        """Say in one line how it stands."""
        if self.version is None:
            return "nothing is released yet"
        if self.published:
            return f"version {self.version} is up to date ({self.files} files checked)"
        said = "; ".join(self.changes[:_CHANGES_SAID])
        more = len(self.changes) - _CHANGES_SAID
        return f"since version {self.version}: {said}{f'; and {more} more' if more > 0 else ''}"


class Release(Value):
    """Everything that one run proved, ready to be published."""

    standing: Standing
    """Why it was made."""
    source: SourceModel
    reference: Reference
    candidates: tuple[Candidate, ...]
    variants: tuple[VariantOutcome, ...] = ()


class ReleaseFile(Value):
    """One file of a release, by its path below ``<model>/<version>/``."""

    path: str
    sha256: Sha256
    size_bytes: NonNegativeInt
    etag: str = ""
    """The store's own tag for these bytes: it tells without reading that they are still there.

    Empty where the store had not listed it yet; then only reading tells.
    """


class PublishedFormat(Value):
    """What the manifest says of one format."""

    format: ModelFormat
    folder: str
    """Where its files stand below the release."""
    sha256: Sha256
    """Digest of the folder: SHA-256 of its sorted ``<digest>  <path>`` lines."""
    size_bytes: NonNegativeInt
    converter: str
    attempts: tuple[Attempt, ...]
    checks: tuple[str, ...]
    onnx: OnnxFacts | None
    parity: ParityReport
    parity_summary: str = ""
    """The report in one line."""
    ms_per_row: NonNegativeFloat | None = None
    """Milliseconds in which it answered a row of the probes, on the host below."""
    drift: Drift | None = None
    """How it compares with the release before."""
    notes: tuple[str, ...]
    skipped: tuple[SkippedPass, ...] = ()
    """Optimising passes that it was released without, and why."""


class Signing(Value):
    """Whether ``model.sig`` stands beside the manifest, and whose it is."""

    method: Literal["key", "off"] = "off"
    """``off``: the release is not signed, and nobody can tell whether it was changed."""
    public_key: Sha256 | None = None
    """SHA-256 of the signer's public key in PEM; the key itself must come from elsewhere."""


class Manifest(Value):
    """``manifest.json``: who finds it finds every file that it names, unchanged.

    It is written last, so a version without one does not exist.
    """

    schema_version: Literal[1] = 1
    model: Slug
    version: PositiveInt
    created: datetime
    seeded: bool
    """True: random weights; the release proves a graph and is of no other use."""
    recipe: Recipe
    fingerprint: Fingerprint
    """All that it depends on; a release with the same one need not be made again."""
    changed_since: PositiveInt | None
    """The version that was ``latest`` before; None for the first."""
    changes: tuple[str, ...]
    """What differs from that one, or what was wrong with it, in words."""
    source_format: ModelFormat
    source_sha256: Sha256
    metrics: dict[str, float]
    source_notes: tuple[str, ...]
    reference_runtime: str
    probes: tuple[ProbeInfo, ...]
    replay: Replay | None = None
    """What became of the golden samples of the release before."""
    formats: tuple[PublishedFormat, ...]
    variants: tuple[PublishedVariant, ...] = ()
    """Each that the recipe asks for, those that were refused too."""
    files: tuple[ReleaseFile, ...]
    costs: dict[str, Cost]
    """By stage."""
    tools: dict[str, str]
    """Version of each package that took part."""
    host: dict[str, str]
    """Platform, processor, memory and GPUs of the machine that did it."""
    flow_run: str | None
    """Id of the Prefect flow run."""
    flow_run_url: str | None = None
    """Its page, where the address of Prefect's UI is known (``PREFECT_UI_URL``)."""
    signing: Signing = Signing()


class Move(Value):
    """One move of an alias: where to, when, by whom and why."""

    version: PositiveInt
    manifest_sha256: Sha256
    moved: datetime
    """By the mover's own clock: for people to read, and never compared with another time."""
    by: str = "unknown"
    how: Literal["publish", "promote", "rollback"] = "publish"
    reason: str = ""


class Alias(Move):
    """``aliases/<name>.json``: which version a name stands for; moved by compare-and-swap."""

    schema_version: Literal[1] = 1
    model: Slug
    history: tuple[Move, ...] = ()
    """The moves before this one, the youngest first, as many as are kept."""

    @property
    def moves(self) -> tuple[Move, ...]:
        """Every move that is remembered, the youngest first."""
        return (self.last, *self.history)

    @property
    def last(self) -> Move:
        """The move that brought it where it stands."""
        return Move.model_validate(self.model_dump(include=set(Move.model_fields)))

    def before(self) -> Move | None:
        """Return where a rollback leads: the last move that is not undone, before this one.

        Two rollbacks in a row undo two moves; they do not swing between two versions.
        """
        standing: list[Move] = []
        for move in reversed(self.moves):
            if move.how == "rollback" and len(standing) > 1:
                standing.pop()
            else:
                standing.append(move)
        return standing[-2] if len(standing) > 1 else None


class Hold(Value):
    """``holds/<version>.json``: somebody needs this version; collecting garbage spares it."""

    schema_version: Literal[1] = 1
    model: Slug
    version: PositiveInt
    by: str
    reason: str
    held: datetime
