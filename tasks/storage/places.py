"""Where things lie below a model's folder in the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tasks.storage.store import ObjectStore

QUARANTINE: Final = "quarantine"
"""``quarantine/<model>/<run>/``: reports of what was not published."""

WORK: Final = "work"
"""``work/<run>/``: what the stages of a run share between machines."""

KEYS: Final = "keys"
"""``keys/<fingerprint>.pem``: the signers' public keys, for people, not for trust."""

SERVING: Final = "serving"
"""``serving/<server>/<model>/<version>/``: copies laid out for serving systems."""

RESERVED: Final = frozenset({QUARANTINE, WORK, KEYS, SERVING})
"""Folders of the bucket that no model may be called."""

ALIASES: Final = "aliases"
HOLDS: Final = "holds"
CLAIM: Final = ".claim.json"
DRAFT: Final = ".manifest.json"
"""The manifest's bytes, settled but not published; see ``tasks.storage.sealing``."""

MANIFEST: Final = "manifest.json"
PROVENANCE: Final = "provenance.json"
"""Where the files come from; a file of the release like any other."""

SIGNATURE: Final = "model.sig"
"""Where a signature stands in a release; OpenSSF model signing's own default."""

REMOVAL: Final = ".removal.json"
"""Marks a version that is being removed; see ``tasks.storage.removal``."""

UNLISTED: Final = (CLAIM, DRAFT, REMOVAL, MANIFEST, SIGNATURE)
"""What lawfully stands in a version's folder without being named by its manifest."""

PAGES: Final = ("README.md", "index.html")
"""What people read of a model, above its versions; see ``tasks.storage.current_pages``."""

LATEST: Final = "latest"
"""The alias that publishing moves, to higher versions only."""


def model_folders(store: ObjectStore) -> list[str]:
    """Return the names of the bucket's folders that are models', sorted."""
    return sorted(name for name in store.folders("") if name not in RESERVED)


def release_folder(model: str, version: int) -> str:
    """Return the key prefix of a version, with a slash at its end."""
    return f"{model}/{version}/"


def alias_key(model: str, alias: str) -> str:
    """Return the key of an alias."""
    return f"{model}/{ALIASES}/{alias}.json"


def hold_key(model: str, version: int) -> str:
    """Return the key of a hold."""
    return f"{model}/{HOLDS}/{version}.json"


def version_of(folder: str) -> int | None:
    """Return the number that a folder's name stands for; None if it is no version."""
    plain = folder.isascii() and folder.isdecimal() and not folder.startswith("0")
    return int(folder) if plain else None
