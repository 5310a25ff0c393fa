"""Which names a release and its files may have."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tasks.domain.errors import ConfigurationError, StorageError
from tasks.storage.places import PROVENANCE, RESERVED, UNLISTED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_OWN = (*UNLISTED, PROVENANCE)


def require_publishable(model: str, files: Mapping[str, Path]) -> None:
    """Refuse paths that would leave the release, hide in it, or stand in each other's way.

    Raises:
        ConfigurationError: A name is not to be used.
        StorageError: A file is not there.
    """
    if model in RESERVED:
        message = f"{model}: is a folder of the bucket with a purpose of its own. Rename the model."
        raise ConfigurationError(message)
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    for path, file in files.items():
        if not file.is_file():
            raise StorageError(f"{file}: no such file; it was to be published as {model}/…/{path}.")
        plain = str(PurePosixPath(path)) == path and not path.startswith("/")
        if not plain or ".." in path.split("/") or path in _OWN or path in folders:
            message = (
                f"{model}: cannot publish a file as '{path}' (expected a relative path such as "
                f"onnx/model.onnx, none of {', '.join(_OWN)}, not also a folder). Rename it."
            )
            raise ConfigurationError(message)
