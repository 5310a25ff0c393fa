"""Saving a Keras model so that equal models are equal files."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from keras import Model

_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip file can say."""
_SHARED = re.compile(rb'("shared_object_id": )(\d+)')


def save_model(model: Model, path: Path) -> None:
    """Save ``model`` as ``path``, without what Keras writes into it of this time and process.

    A stage that is tried again then stores the same bytes again.
    """
    original = path.with_name(f"original-{path.name}")
    model.save(original)
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            entry = zipfile.ZipInfo(name, _DATE)
            if name == "metadata.json":
                target.writestr(entry, _without_date(source.read(name)))
            elif name == "config.json":
                target.writestr(entry, _renumbered(source.read(name)))
            else:
                with (
                    source.open(name) as reader,
                    target.open(entry, "w", force_zip64=True) as writer,
                ):
                    shutil.copyfileobj(reader, writer, 1 << 20)
    original.unlink()


def _without_date(metadata: bytes) -> bytes:
    fields = json.loads(metadata)
    fields.pop("date_saved", None)
    return json.dumps(fields).encode()


def _renumbered(config: bytes) -> bytes:
    """Number shared objects in their order; Keras numbers them by their place in memory."""
    numbers: dict[bytes, int] = {}

    def number(match: re.Match[bytes]) -> bytes:
        return b"%s%d" % (match[1], numbers.setdefault(match[2], len(numbers)))

    return _SHARED.sub(number, config)
