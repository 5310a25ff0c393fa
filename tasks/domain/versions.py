"""The versions of a model, as a person wants to see them listed."""

from __future__ import annotations

from datetime import datetime

from pydantic import NonNegativeInt, PositiveInt

from tasks.domain.garbage import VersionState
from tasks.domain.value import Value


class VersionInfo(Value):
    """One number in use."""

    version: PositiveInt
    state: VersionState
    created: datetime | None
    """By the clock of the machine that published it; None without a readable manifest."""
    size_bytes: NonNegativeInt
    needed: str
    """Which aliases and holds need it, in words; empty if none."""
