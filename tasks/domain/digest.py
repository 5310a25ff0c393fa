"""A digest: the number by which one knows bytes again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from tasks.domain.value import Value

if TYPE_CHECKING:
    from hashlib import _Hash

Md5: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""An MD5 digest, 32 lower-case hexadecimal digits."""


class Digest(Value):
    """A digest and how it is computed."""

    algorithm: Literal["sha256", "md5"]
    hexadecimal: str

    def __str__(self) -> str:
        """Write it for people, such as ``sha256 0676ba61…`` with all its digits."""
        return f"{self.algorithm} {self.hexadecimal}"

    def hasher(self) -> _Hash:
        """Return what computes a digest of this kind, with nothing in it yet."""
        # so that Python builds for FIPS, which forbid MD5 as a safeguard, allow it; no
        # difference for SHA-256
        return hashlib.new(self.algorithm, usedforsecurity=False)
