"""Step 1 of publishing: who may write under a number. See ``tasks.storage.publishing``."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tasks.domain.errors import (
    ArtifactNotFoundError,
    ReleaseConflictError,
    StorageUnavailableError,
)
from tasks.domain.value import Value
from tasks.storage.documents import read_document
from tasks.storage.places import CLAIM, MANIFEST, REMOVAL

if TYPE_CHECKING:
    from tasks.storage.store import ObjectStore

MOST_TRIES = 30
_JITTER_SECONDS = 0.1
_RECENT = 50
"""How far back a retry looks for what it began; further back it would only waste requests."""


class Claim(Value):
    """Who publishes under a number."""

    owner: str
    claimed: datetime


def own_claim(store: ObjectStore, model: str, owner: str) -> int | None:
    """Return the highest of the recent numbers that ``owner`` has claimed and not lost."""
    for version in sorted(_versions(store, model), reverse=True)[:_RECENT]:
        if _owner_of(store, model, version) == owner:
            return None if is_given_up(store, model, version) else version
    return None


def claim_next(store: ObjectStore, model: str, owner: str) -> int:
    """Claim the number after the highest in use, and return it.

    Raises:
        StorageUnavailableError: Others were faster, time and again.
    """
    for _ in range(MOST_TRIES):
        version = 1 + max(_versions(store, model), default=0)
        if _try_claim(store, model, version, owner):
            return version
        pause()
    message = f"{store.url(model)}: too many publish at once. Try again later."
    raise StorageUnavailableError(message)


def claim(store: ObjectStore, model: str, version: int, owner: str) -> None:
    """Claim a certain number, or find that it is ours already.

    Raises:
        ReleaseConflictError: Another owner has it.
    """
    folder = f"{model}/{version}/"
    taken = _owner_of(store, model, version) is None and _holds(store, f"{folder}{MANIFEST}")
    if not taken and _try_claim(store, model, version, owner):
        return
    holder = _owner_of(store, model, version) or "unknown"
    message = (
        f"{store.url(folder)}: this version belongs to another run ({holder}). Publish under "
        "another version, or under none to get the next. If that run died before it wrote a "
        "manifest.json, the folder may be removed."
    )
    raise ReleaseConflictError(message)


def is_given_up(store: ObjectStore, model: str, version: int) -> bool:
    """Whether a number is being removed as garbage; see ``tasks.storage.removal``."""
    return _holds(store, f"{model}/{version}/{REMOVAL}")


def require_still_ours(store: ObjectStore, model: str, version: int, owner: str) -> None:
    """Refuse to publish under a number that was given up because its run seemed dead.

    Raises:
        ReleaseConflictError: It is being removed, or was, and may be another's by now.
    """
    if is_given_up(store, model, version) or _owner_of(store, model, version) != owner:
        message = (
            f"{store.url(f'{model}/{version}/')}: this number was given up as garbage, since "
            "nothing had been written there for long. Run it again, to publish under the next."
        )
        raise ReleaseConflictError(message)


def pause() -> None:
    """Let others finish, not all for the same time."""
    time.sleep(random.uniform(0, _JITTER_SECONDS))  # noqa: S311 - it guards nothing


def _try_claim(store: ObjectStore, model: str, version: int, owner: str) -> bool:
    content = Claim(owner=owner, claimed=datetime.now(UTC)).model_dump_json(indent=2).encode()
    if store.create(f"{model}/{version}/{CLAIM}", content):
        return True
    # it may be ours: from an earlier try, or from a request whose answer was lost
    return _owner_of(store, model, version) == owner


def _owner_of(store: ObjectStore, model: str, version: int) -> str | None:
    try:
        return read_document(Claim, store, f"{model}/{version}/{CLAIM}").owner
    except ArtifactNotFoundError:
        return None


def _holds(store: ObjectStore, key: str) -> bool:
    try:
        store.read(key)
    except ArtifactNotFoundError:
        return False
    return True


def _versions(store: ObjectStore, model: str) -> list[int]:
    """Return every number that somebody has claimed, whole or not."""
    return [int(name) for name in store.folders(f"{model}/") if name.isdecimal()]
