"""Names for versions, moved by compare-and-swap: each alias is one small object with its history.

No move compares times: a clock that is wrong shows in the history and decides nothing. Who
loses a race reads again; then a promotion, whose intent ("let it stand at 7") still holds, is
tried again, and a rollback, whose intent ("undo what I saw") does not, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter, ValidationError

from tasks.domain.artifact import Slug
from tasks.domain.errors import (
    AliasConflictError,
    ArtifactNotFoundError,
    ConfigurationError,
    DigestMismatchError,
    StorageUnavailableError,
)
from tasks.domain.release import Alias, Manifest, Move
from tasks.storage.claims import MOST_TRIES, pause
from tasks.storage.documents import parse_document
from tasks.storage.places import ALIASES, LATEST, MANIFEST, alias_key, release_folder
from tasks.storage.whole import named_manifest, require_whole

if TYPE_CHECKING:
    from tasks.storage.inventory import Inventory
    from tasks.storage.store import ObjectStore

KEPT_MOVES = 100
"""How many earlier moves an alias remembers: some 30 kB, read in one request."""

_SLUG: TypeAdapter[str] = TypeAdapter(Slug)


@dataclass(frozen=True)
class _Seen:
    """An alias as it was read; ``alias`` is None where there is none yet."""

    alias: Alias | None
    etag: str

    @property
    def version(self) -> int | None:
        return self.alias.version if self.alias else None


@dataclass(frozen=True)
class _Request:
    """A wish to move an alias."""

    model: str
    alias: str
    how: Literal["publish", "promote", "rollback"]
    by: str
    reason: str = ""

    def move(self, version: int, manifest_sha256: str) -> Move:
        return Move(
            version=version,
            manifest_sha256=manifest_sha256,
            moved=datetime.now(UTC),
            by=self.by,
            how=self.how,
            reason=self.reason,
        )


def read_alias(store: ObjectStore, model: Slug, alias: Slug) -> Alias | None:
    """Return an alias; None if nobody has set it yet.

    Raises:
        NewerSchemaError: Only a newer version of this program can read it.
        StorageError: It could not be read.
    """
    return _read(store, model, alias).alias


def read_aliases(store: ObjectStore, model: Slug) -> dict[str, Alias]:
    """Return every alias of a model by name.

    Raises:
        NewerSchemaError: Only a newer version of this program can read one of them.
        StorageError: One of them could not be read.
    """
    folder = f"{model}/{ALIASES}/"
    names = sorted(
        key.removeprefix(folder).removesuffix(".json")
        for key in store.keys(folder)
        if key.endswith(".json")
    )
    found = {name: read_alias(store, model, name) for name in names}
    return {name: alias for name, alias in found.items() if alias is not None}


def resolve(store: ObjectStore, model: Slug, alias: Slug) -> Manifest | None:
    """Return the manifest that an alias names; None if nobody has set it yet.

    Raises:
        DigestMismatchError: The manifest is not the one that the alias was moved to.
        StorageError: It could not be read.
    """
    standing = read_alias(store, model, alias)
    return None if standing is None else named_manifest(store, model, standing)[0]


def advance(store: ObjectStore, model: Slug, version: int, manifest_sha256: str, by: str) -> bool:
    """Move ``latest`` forwards to a version; return whether it stands there now.

    It moves to versions alone that are higher than any it stood at: a version that was rolled
    back does not come back because its run is tried again.
    """
    wish = _Request(model, LATEST, "publish", by)
    for _ in range(MOST_TRIES):
        seen = _read(store, model, LATEST)
        moves = seen.alias.moves if seen.alias else ()
        if version <= max((each.version for each in moves), default=0):
            return seen.version == version
        if _write(store, wish, seen, wish.move(version, manifest_sha256)):
            return True
        pause()
    raise _too_many(store, wish)


def promote(  # noqa: PLR0913 - what to move, where to, and who asks
    store: Inventory,
    model: Slug,
    alias: Slug,
    version: int,
    *,
    by: str,
    reason: str = "",
    expected: int | None = None,
) -> Alias:
    """Let an alias stand at a whole version; one that stands there already is left alone.

    Args:
        store: Where.
        model: Whose alias.
        alias: ``latest``, ``candidate``, ``champion`` or another slug.
        version: Where to.
        by: Who asks, for the history.
        reason: Why, for the history.
        expected: Where the caller saw it (0: nowhere); absent: wherever it stands.

    Raises:
        AliasConflictError: It does not stand where the caller saw it.
        ArtifactNotFoundError: There is no such version.
        StorageError: The version is not whole, or the store refused.
    """
    _require_slug(alias)
    digest = require_whole(store, model, version)
    wish = _Request(model, alias, "promote", by, reason)
    for _ in range(MOST_TRIES):
        seen = _read(store, model, alias)
        if seen.alias and (seen.version, seen.alias.manifest_sha256) == (version, digest):
            return seen.alias
        _require_expected(store, wish, seen, expected)
        move = wish.move(version, digest)
        if _write(store, wish, seen, move):
            _require_kept(store, wish, seen, version)
            return _after(wish, seen, move)
        pause()
    raise _too_many(store, wish)


def rollback(
    store: Inventory,
    model: Slug,
    alias: Slug,
    *,
    by: str,
    reason: str = "",
    expected: int | None = None,
) -> Alias:
    """Undo the last move of an alias that is not undone yet.

    Asking again with the same ``by`` and ``expected`` is no second rollback.

    Args:
        store: Where.
        model: Whose alias.
        alias: Its name.
        by: Who asks, for the history.
        reason: Why, for the history.
        expected: The version to get away from; absent: wherever it stands.

    Raises:
        AliasConflictError: It does not stand where the caller saw it, it moved meanwhile, or
            nothing stood there before.
        StorageError: The version before is no longer whole, or the store refused.
    """
    wish = _Request(model, alias, "rollback", by, reason)
    seen = _read(store, model, alias)
    if seen.alias and expected is not None and _is_done(seen.alias, by, expected):
        return seen.alias
    _require_expected(store, wish, seen, expected)
    target, digest = _before(store, wish, seen)
    move = wish.move(target, digest)
    if not _write(store, wish, seen, move):
        raise _conflict(store, wish, seen.version, _read(store, model, alias).version)
    _require_kept(store, wish, seen, target)
    return _after(wish, seen, move)


def _before(store: Inventory, wish: _Request, seen: _Seen) -> tuple[int, str]:
    """Return the version that a rollback leads to, which must be whole, and its digest."""
    target = seen.alias.before() if seen.alias else None
    if target is None:
        message = (
            f"{store.url(alias_key(wish.model, wish.alias))}: cannot be rolled back (expected a "
            "version that stood there before, got none). Promote the version that you want."
        )
        raise AliasConflictError(message)
    digest = require_whole(store, wish.model, target.version)
    if digest != target.manifest_sha256:
        where = store.url(f"{release_folder(wish.model, target.version)}{MANIFEST}")
        raise DigestMismatchError.of(where, expected=target.manifest_sha256, got=digest)
    return target.version, digest


def _is_done(alias: Alias, by: str, expected: int) -> bool:
    """Whether the alias stands where this very request has put it."""
    undone = alias.history[0].version if alias.history else None
    return (alias.how, alias.by, undone) == ("rollback", by, expected)


def _read(store: ObjectStore, model: str, alias: str) -> _Seen:
    key = alias_key(model, alias)
    try:
        text = store.read(key)
    except ArtifactNotFoundError:
        return _Seen(None, "")
    return _Seen(parse_document(Alias, text.content, store.url(key)), text.etag)


def _after(wish: _Request, seen: _Seen, move: Move) -> Alias:
    earlier = seen.alias.moves if seen.alias else ()
    return Alias(model=wish.model, history=earlier[:KEPT_MOVES], **move.model_dump())


def _write(store: ObjectStore, wish: _Request, seen: _Seen, move: Move) -> bool:
    """Write what follows on what was seen; return whether it stands, or stood, there.

    A request may succeed and its answer be lost: then the client tries again and hears that
    somebody was faster. That may have been us, which the history tells.
    """
    key = alias_key(wish.model, wish.alias)
    content = _after(wish, seen, move).model_dump_json(indent=2).encode()
    if seen.alias is None:
        written = store.create(key, content)
    else:
        written = store.replace(key, content, seen.etag)
    if written:
        return True
    now = _read(store, wish.model, wish.alias).alias
    return now is not None and move in now.moves


def _require_kept(store: ObjectStore, wish: _Request, seen: _Seen, version: int) -> None:
    """Move the alias back if its version was removed meanwhile; see ``tasks.storage.removal``."""
    manifest = f"{release_folder(wish.model, version)}{MANIFEST}"
    try:
        store.read(manifest)
    except ArtifactNotFoundError as error:
        key = alias_key(wish.model, wish.alias)
        now = _read(store, wish.model, wish.alias)
        if now.version == version and seen.alias is None:
            store.remove(key)
        elif now.version == version and seen.alias is not None:
            store.replace(key, seen.alias.model_dump_json(indent=2).encode(), now.etag)
        message = (
            f"{store.url(manifest)}: was removed as garbage while the alias '{wish.alias}' moved "
            "to it; the alias is back where it was. Choose another version, or try again."
        )
        raise AliasConflictError(message) from error


def _require_slug(alias: str) -> None:
    try:
        _SLUG.validate_python(alias)
    except ValidationError as error:
        message = (
            f"{alias}: is no name for an alias (expected lower-case letters, digits and single "
            "dashes, such as champion). Rename it."
        )
        raise ConfigurationError(message) from error


def _require_expected(
    store: ObjectStore, wish: _Request, seen: _Seen, expected: int | None
) -> None:
    if expected is not None and (seen.version or 0) != expected:
        raise _conflict(store, wish, expected, seen.version)


def _conflict(
    store: ObjectStore, wish: _Request, expected: int | None, got: int | None
) -> AliasConflictError:
    return AliasConflictError(
        f"{store.url(alias_key(wish.model, wish.alias))}: somebody moved it meanwhile (expected "
        f"version {expected or 'none'}, got {got or 'none'}). Look at its history, then decide "
        "again."
    )


def _too_many(store: ObjectStore, wish: _Request) -> StorageUnavailableError:
    where = store.url(alias_key(wish.model, wish.alias))
    return StorageUnavailableError(f"{where}: too many move this alias at once. Try again later.")
