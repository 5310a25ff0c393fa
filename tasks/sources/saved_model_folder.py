"""TensorFlow SavedModels, as a folder or packed in a ``.zip`` or ``.tar.gz``."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from tasks.domain.errors import AcquisitionError
from tasks.sources import AcquireReply, AcquireRequest

_LARGEST_BYTES = 16_000_000_000
"""Unpacked size above which an archive is refused."""


def acquire(request: AcquireRequest) -> AcquireReply:
    """Copy or unpack the SavedModel into the folder.

    Raises:
        AcquisitionError: The download holds no SavedModel or more than one, or its archive
            is broken or reaches outside its own folder.
    """
    (path,) = request.downloads
    unpacked = request.folder.with_name(f"{request.folder.name}-unpacked")
    try:
        folder = path if path.is_dir() else _unpack(request, path, unpacked)
        root = _root(request, folder)
        shutil.copytree(root, request.folder, dirs_exist_ok=True)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return AcquireReply()


def _root(request: AcquireRequest, folder: Path) -> Path:
    found = sorted(folder.rglob("saved_model.pb"))
    if len(found) != 1:
        message = (
            f"{request.recipe.name}: source.download: expected one saved_model.pb in it, "
            f"got {len(found)}. Point the recipe at the SavedModel's own folder."
        )
        raise AcquisitionError(message)
    return found[0].parent


def _unpack(request: AcquireRequest, path: Path, folder: Path) -> Path:
    folder.mkdir()
    try:
        if zipfile.is_zipfile(path):
            _unzip(request, path, folder)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                _check_size(request, sum(member.size for member in archive))
                archive.extractall(folder, filter="data")
        else:
            message = (
                f"{request.recipe.name}: source.download: neither a folder nor an archive "
                "(expected a SavedModel's folder, .zip or .tar.gz)."
            )
            raise AcquisitionError(message)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        message = f"{request.recipe.name}: source.download: the archive does not unpack: {error}."
        raise AcquisitionError(message) from error
    return folder


def _unzip(request: AcquireRequest, path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        _check_size(request, sum(each.file_size for each in archive.infolist()))
        for name in archive.namelist():
            parts = PurePosixPath(name.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts:
                message = (
                    f"{request.recipe.name}: source.download: the archive reaches outside its "
                    f"folder ('{name[:100]}'). Do not trust it."
                )
                raise AcquisitionError(message)
        archive.extractall(folder)  # noqa: S202 - names and size were checked above


def _check_size(request: AcquireRequest, size: int) -> None:
    if size > _LARGEST_BYTES:
        message = (
            f"{request.recipe.name}: source.download: unpacks to {size:,} bytes "
            f"(at most {_LARGEST_BYTES:,} are taken)."
        )
        raise AcquisitionError(message)
