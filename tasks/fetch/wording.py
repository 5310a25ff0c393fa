"""Words that several schemes use in their errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.fetch.transfer import Wanted


def redacted(uri: str) -> str:
    """Hide the credentials of ``uri``: user and password, and the query of a signed address."""
    uri = re.sub(r"(?<=://)[^/@\s]+@", "***@", uri)
    return re.sub(r"\?[^#\s]*", "?…", uri)


def out_of_reach(wanted: Wanted, whom: str, reason: object) -> str:
    """Say that a server cannot be reached, and what to do on a machine without network."""
    from tasks.fetch.cache import place_of

    return (
        f"{redacted(wanted.uri)}: {whom} cannot be reached ({redacted(str(reason))}). "
        "This download needs that network. Without it, put the file at "
        f"{place_of(wanted.cache, wanted.digest)}, or point the recipe's uri to a file:// "
        f"copy with the same {wanted.digest.algorithm}."
    )


def megabytes(size: int) -> str:
    """Write a number of bytes for people."""
    return f"{size / 1e6:,.1f} MB"
