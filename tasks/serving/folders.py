"""Placing a release's files where a server looks for them, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Literal

from tasks.domain.errors import ConfigurationError, DigestMismatchError
from tasks.domain.release import ReleaseFile
from tasks.domain.value import Value
from tasks.serving.source import folder_of
from tasks.storage.digest import sha256_of

if TYPE_CHECKING:
    from tasks.domain.artifact import ModelFormat
    from tasks.serving.source import ReleaseSource

Server = Literal["triton", "tfserving", "kserve"]


class Layout(Value):
    """Files laid out for a server."""

    server: Server
    model: str
    version: int
    folder: Path
    """The model repository, or the folder of what was written."""
    files: tuple[ReleaseFile, ...]
    """By their paths below ``folder``."""
    uri: str | None = None
    """Where they stand in the bucket, if they were put there."""
    command: str
    """What serves them."""
    notes: tuple[str, ...] = ()


def place(
    release: ReleaseSource, wanted: ModelFormat, folder: Path, variant: str = ""
) -> tuple[ReleaseFile, ...]:
    """Write the files of one format to ``folder``, which appears when all of them are right.

    A server that watches the parent sees no half of a version. Where the folder is there
    already, it must hold the same bytes and no others.

    Returns:
        The files by their paths below ``folder``, with the manifest's digests.

    Raises:
        ConfigurationError: The release does not have the format or the variant, or ``folder``
            is another thing.
        DigestMismatchError: A file is not the one that the manifest names.
    """
    manifest = release.manifest
    prefix = f"{folder_of(manifest, wanted, variant)}/"
    files = [each for each in manifest.files if each.path.startswith(prefix)]
    placed = tuple(
        each.model_copy(update={"path": each.path.removeprefix(prefix)}) for each in files
    )
    if folder.exists():
        _require_same(folder, placed)
        return placed
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for file, target in zip(files, placed, strict=True):
            release.fetch(file, unfinished / target.path)
        _require_same(unfinished, placed)
        unfinished.chmod(0o755)  # a server runs as somebody else; mkdtemp keeps it to its owner
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return placed


def write_document(path: Path, text: str) -> ReleaseFile:
    """Write a generated text, or find it there as it would be written.

    Raises:
        ConfigurationError: ``path`` holds another text.
    """
    if path.exists() and path.read_text("utf-8") != text:
        message = (
            f"{path}: is there already, for another signature or other options. All versions in "
            "one folder share it: lay this version out into another folder."
        )
        raise ConfigurationError(message)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return ReleaseFile(path=path.name, sha256=sha256_of(path), size_bytes=len(text.encode("utf-8")))


def below(folder: str, files: tuple[ReleaseFile, ...]) -> tuple[ReleaseFile, ...]:
    """Return the files with ``folder`` before their paths."""
    return tuple(each.model_copy(update={"path": f"{folder}/{each.path}"}) for each in files)


def _require_same(folder: Path, files: tuple[ReleaseFile, ...]) -> None:
    """Hold a folder to the manifest: every file by its digest, and nothing else."""
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    wanted = {each.path for each in files}
    if there != wanted:
        odd = sorted(there ^ wanted)
        message = (
            f"{folder}: is there already and does not hold this version (expected "
            f"{len(wanted)} files, got {len(there)}; first that differs: {odd[0]}). Remove it, or "
            "lay out into another folder."
        )
        raise ConfigurationError(message)
    for each in files:
        if (got := sha256_of(folder / each.path)) != each.sha256:
            raise DigestMismatchError.of(str(folder / each.path), expected=each.sha256, got=got)
