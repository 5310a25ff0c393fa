"""What a check of the bucket found: each finding names a key, and what to do about it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import NonNegativeInt

from tasks.domain.value import Value

FindingKind: TypeAlias = Literal[
    "missing", "size", "digest", "unreadable", "extra", "manifest", "schema", "alias", "hold",
    "unfinished", "removal", "unknown", "quarantine", "work", "upload",
]  # fmt: skip


class Finding(Value):
    """Something in the bucket that is wrong, or left over."""

    level: Literal["error", "note"]
    """Error: a reader of a release is misled or left without. Note: a leftover, in nobody's way."""
    kind: FindingKind
    key: str
    what: str
    next: str
    """What to do about it."""

    def __str__(self) -> str:
        """Write it in one line."""
        return f"{self.level}: {self.key}: {self.what}. {self.next}"


class BucketReport(Value):
    """What was checked, and what came of it."""

    findings: tuple[Finding, ...]
    models: NonNegativeInt
    releases: NonNegativeInt
    """Versions whose files were read."""
    files: NonNegativeInt
    size_bytes: NonNegativeInt
    """How much was read."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that are more than leftovers."""
        return tuple(each for each in self.findings if each.level == "error")

    @property
    def sound(self) -> bool:
        """Whether every release is what its manifest says, and every alias stands at one."""
        return not self.errors

    def summary(self) -> str:
        """Say in one line how it stands."""
        read = f"{self.releases} releases of {self.models} models, {self.files} files read"
        notes = len(self.findings) - len(self.errors)
        errors = f"{len(self.errors)} error{'' if len(self.errors) == 1 else 's'}"
        verdict = "sound" if self.sound else errors
        return f"{verdict}: {read} ({self.size_bytes / 1e6:,.1f} MB), {notes} leftovers"
