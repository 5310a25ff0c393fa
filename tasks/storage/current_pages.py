"""The pages above the versions: what stands there now, derived anew from the bucket each time.

    index.html, README.md            which models there are
    <model>/index.html, README.md    which versions a model has, the newest first

Apart from the aliases they are all that ever changes in the bucket. They hold nothing of
their own: each is made from the manifests and aliases that are there, and written by
compare-and-swap on the page that stood there *before these were read*. So whoever writes
last has seen what all before have published, and a page that a crash kept from being
written is right again after the next release.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from tasks.domain.artifact import Slug
from tasks.domain.errors import ArtifactNotFoundError, StorageError, StorageUnavailableError
from tasks.domain.release import Alias, Manifest
from tasks.report.model_pages import ModelView, VersionRow, model_pages, root_pages, version_row
from tasks.report.release_pages import INDEX, README
from tasks.storage.claims import MOST_TRIES, pause
from tasks.storage.digest import content_type_of
from tasks.storage.documents import read_document
from tasks.storage.pipeline import WORKERS, pipelined
from tasks.storage.places import MANIFEST, RESERVED

if TYPE_CHECKING:
    from tasks.storage.store import ObjectStore

NEWEST = 50
"""How many versions a model's page shows; each costs the reading of its manifest."""
_MOST_MODELS = 1_000
_MOST_ALIASES = 50
_SLUG: TypeAdapter[str] = TypeAdapter(Slug)
Pages = Mapping[str, str]


def write_current_pages(store: ObjectStore, model: Slug) -> None:
    """Write the pages of ``model``, and those of the bucket if they change.

    Raises:
        StorageError: The store refused. Every release is whole all the same.
    """
    _write(store, f"{model}/", partial(_model_pages, store, model))
    _write(store, "", partial(_root_pages, store))


def refresh_pages(store: ObjectStore, models: Iterable[str]) -> tuple[str, ...]:
    """Write the pages of ``models`` anew; return in words what could not be written.

    Nothing depends on these pages, so they fail nothing: the next release, or the next move of
    an alias, writes them again.
    """
    faults = []
    for model in models:
        try:
            write_current_pages(store, model)
        except StorageError as error:
            faults.append(f"{error} The pages above the release are not current.")
    return tuple(faults)


def _write(store: ObjectStore, folder: str, make: Callable[[], Pages]) -> None:
    """Write what ``make`` gives, and give it anew for whatever somebody else changed meanwhile."""
    waiting = {README, INDEX}
    for _ in range(MOST_TRIES):
        standing = {name: _read(store, f"{folder}{name}") for name in sorted(waiting)}
        made = make()
        waiting = {
            name
            for name, (content, etag) in standing.items()
            if content != made[name].encode()
            and not _put(store, f"{folder}{name}", made[name], etag)
        }
        if not waiting:
            return
        pause()
    where = store.url(f"{folder}{min(waiting)}")
    message = f"{where}: too many write this page at once. Try again later."
    raise StorageUnavailableError(message)


def _read(store: ObjectStore, key: str) -> tuple[bytes | None, str]:
    try:
        return store.read(key)
    except ArtifactNotFoundError:
        return None, ""


def _put(store: ObjectStore, key: str, text: str, etag: str) -> bool:
    content, kind = text.encode(), content_type_of(key)
    if etag:
        return store.replace(key, content, etag, kind)
    return store.create(key, content, kind)


def _model_pages(store: ObjectStore, model: str) -> Pages:
    names = [name for name in store.folders(f"{model}/") if re.fullmatch(r"[1-9][0-9]*", name)]
    numbers = sorted(map(int, names), reverse=True)
    rows = pipelined(partial(_row, store, model), numbers[:NEWEST], WORKERS)
    view = ModelView(
        model=model,
        versions=tuple(row for row in rows if row),
        older=len(numbers[NEWEST:]),
        aliases=_aliases(store, model),
    )
    return model_pages(view)


def _row(store: ObjectStore, model: str, version: int) -> VersionRow | None:
    """Return what the page says of a version; None for a number that was only claimed."""
    try:
        return version_row(read_document(Manifest, store, f"{model}/{version}/{MANIFEST}"))
    except ArtifactNotFoundError:
        return None
    except StorageUnavailableError:
        raise
    except StorageError:  # by a newer version of this program, as a rule
        return VersionRow(version=version)


def _aliases(store: ObjectStore, model: str) -> dict[str, int]:
    folder = f"{model}/aliases/"
    found = {}
    for key in sorted(islice(store.keys(folder), _MOST_ALIASES)):
        try:
            alias = read_document(Alias, store, key)
        except StorageUnavailableError:
            raise
        except StorageError:  # removed meanwhile, or of a newer version of this program
            continue
        found[key.removeprefix(folder).removesuffix(".json")] = alias.version
    return found


def _root_pages(store: ObjectStore) -> Pages:
    models = islice(filter(_is_model, store.folders("")), _MOST_MODELS)
    return root_pages(sorted(models))


def _is_model(name: str) -> bool:
    try:
        return _SLUG.validate_python(name) not in RESERVED
    except ValidationError:
        return False
