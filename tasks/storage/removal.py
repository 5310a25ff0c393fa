"""How a version is removed, so that it never looks whole when it is not.

1. Write ``.removal.json`` beside the manifest, with the manifest's text in it. From now on
   nobody publishes under this number.
   — *Ends it here, the version is whole. The next collection begins again.*
2. Delete ``manifest.json``. **From now on the version does not exist.**
   — *The next collection goes on with 3, however young the version is.*
3. Ask once more whether an alias or a hold needs it, since somebody may have promoted it after
   the plan was made; whoever promotes or holds looks for the manifest again afterwards. If it
   is needed, write the manifest back as it was, delete the mark, and leave it.
   — *As after 2; all files are still there.*
4. Swap the mark for one that says "deleting". It cannot be undone from here.
5. Delete the files; then the mark; the claim last, so that nobody takes the number while
   anything of it is left.
   — *The next collection finds the mark and goes on, or finds a claim alone, and removes that
   when it is old.*

Two collections at once: one that finds the mark of another takes it over by compare-and-swap,
and the other one, whose swap in step 4 then fails, leaves the version to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from pydantic import PositiveInt

from tasks.domain.artifact import Slug
from tasks.domain.errors import ArtifactNotFoundError
from tasks.domain.value import Value
from tasks.storage.documents import parse_document
from tasks.storage.places import CLAIM, MANIFEST, REMOVAL, release_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.storage.inventory import Inventory

ANOTHER_COLLECTS = "another collection is removing it"
PUBLISHED_MEANWHILE = "was published meanwhile"

_AT_ONCE = 200
"""Files that are deleted between two words of progress."""


class RemovalMark(Value):
    """``.removal.json``: a version on its way out."""

    schema_version: Literal[1] = 1
    model: Slug
    version: PositiveInt
    state: Literal["condemned", "deleting"]
    manifest: str | None
    """Its manifest's text; None for a number that was never published."""
    collector: str
    """Who put the mark there; another collection that takes over puts its own."""


def remove_version(
    store: Inventory,
    model: Slug,
    version: int,
    why_needed: Callable[[], str | None],
    *,
    published: bool = True,
    on_step: Callable[[str], None] = lambda _step: None,
) -> str | None:
    """Remove a version; return why it stays after all, or None when it is gone.

    Args:
        store: Where.
        model: Whose version.
        version: Its number.
        why_needed: Looks afresh for a reason to keep it.
        published: Whether it had a manifest when its removal was planned; one that has got
            a manifest since then is left alone.
        on_step: Is told each step that was done.
    """
    folder = release_folder(model, version)
    manifest = _manifest_text(store, folder)
    if manifest is not None and not published:
        return PUBLISHED_MEANWHILE
    marked = _mark(store, model, version, manifest)
    if marked is None:
        return ANOTHER_COLLECTS
    mark, etag = marked
    on_step("marked")
    if mark.state == "condemned":
        reason = _condemn(store, folder, mark, etag, why_needed, on_step)
        if reason is not None:
            return reason
    _delete_files(store, folder, on_step)
    return None


def _condemn(
    store: Inventory,
    folder: str,
    mark: RemovalMark,
    etag: str,
    why_needed: Callable[[], str | None],
    on_step: Callable[[str], None],
) -> str | None:
    """Do steps 2 to 4; return why the version stays."""
    if mark.manifest is None and _manifest_text(store, folder) is not None:
        store.delete([f"{folder}{REMOVAL}"], folder)
        return PUBLISHED_MEANWHILE
    store.delete([f"{folder}{MANIFEST}"], folder)
    on_step("deleted manifest")
    reason = why_needed()
    if reason is not None:
        _restore(store, folder, mark)
        return reason
    final = mark.model_copy(update={"state": "deleting"})
    if not store.replace(f"{folder}{REMOVAL}", _content(final), etag):
        if _read_mark(store, folder) is None:
            _restore(store, folder, mark)
        return ANOTHER_COLLECTS
    on_step("decided")
    return None


def _restore(store: Inventory, folder: str, mark: RemovalMark) -> None:
    if mark.manifest is not None:
        store.create(f"{folder}{MANIFEST}", mark.manifest.encode())
    store.delete([f"{folder}{REMOVAL}"], folder)


def _delete_files(store: Inventory, folder: str, on_step: Callable[[str], None]) -> None:
    """Do step 5; the manifest is among the files if a run that seemed dead wrote it meanwhile."""
    last = (f"{folder}{REMOVAL}", f"{folder}{CLAIM}")
    first = [f"{folder}{MANIFEST}"]
    store.delete(first, folder)
    files = [each.key for each in store.entries(folder) if each.key not in {*last, *first}]
    for start in range(0, len(files), _AT_ONCE):
        store.delete(files[start : start + _AT_ONCE], folder)
        on_step(f"deleted {min(start + _AT_ONCE, len(files))} of {len(files)} files")
    for key in last:
        store.delete([key], folder)
        on_step(f"deleted {key.removeprefix(folder)}")


def _mark(
    store: Inventory, model: str, version: int, manifest: str | None
) -> tuple[RemovalMark, str] | None:
    """Put our mark there, or take over another's; None if somebody was faster."""
    folder = release_folder(model, version)
    key = f"{folder}{REMOVAL}"
    mark = RemovalMark(
        model=model,
        version=version,
        state="condemned",
        manifest=manifest,
        collector=uuid4().hex,
    )
    if not store.create(key, _content(mark)):
        standing = _read_mark(store, folder)
        if standing is None:
            return None
        theirs, etag = standing
        if theirs.collector == mark.collector or theirs.state == "deleting":
            return theirs, etag
        mark = theirs.model_copy(update={"collector": mark.collector})
        if not store.replace(key, _content(mark), etag):
            return None
    ours = _read_mark(store, folder)
    return ours if ours is not None and ours[0] == mark else None


def _read_mark(store: Inventory, folder: str) -> tuple[RemovalMark, str] | None:
    key = f"{folder}{REMOVAL}"
    try:
        text = store.read(key)
    except ArtifactNotFoundError:
        return None
    return parse_document(RemovalMark, text.content, store.url(key)), text.etag


def _manifest_text(store: Inventory, folder: str) -> str | None:
    try:
        return store.read(f"{folder}{MANIFEST}").content.decode()
    except ArtifactNotFoundError:
        return None


def _content(mark: RemovalMark) -> bytes:
    return mark.model_dump_json(indent=2).encode()
