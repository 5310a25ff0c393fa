"""SHA-256 of files, and kinds of files."""

from __future__ import annotations

import base64
import hashlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".yaml": "application/yaml",
}


def content_type_of(key: str) -> str:
    """Return the media type that lets a browser show a file; models are plain bytes."""
    return _CONTENT_TYPES.get(PurePosixPath(key).suffix.lower(), "application/octet-stream")


def sha256_of(path: Path) -> str:
    """Return the digest of a file, in hexadecimal; the file is streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Return the digest of a small document, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def s3_checksum(content: bytes) -> str:
    """Return SHA-256 as the header ``x-amz-checksum-sha256`` wants it: in base64."""
    return base64.b64encode(hashlib.sha256(content).digest()).decode()
