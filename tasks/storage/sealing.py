"""Steps 4 to 6 of publishing: provenance, manifest and signature. See ``tasks.storage.publishing``.

The signature covers the manifest, so the manifest's bytes must be settled before it is
written: a retry would write another time into it. They are settled in ``.manifest.json``, which
is created once; the signature and ``manifest.json`` are both made of what stands there, whoever
makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.domain.errors import DigestMismatchError, SigningError
from tasks.domain.release import Manifest, ReleaseFile, Signing
from tasks.storage.digest import sha256_of_bytes
from tasks.storage.documents import parse_document
from tasks.storage.places import CLAIM, DRAFT, KEYS, MANIFEST, PROVENANCE, REMOVAL, SIGNATURE
from tasks.storage.signing import sign, signed_digests

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.domain.provenance import Statement
    from tasks.storage.keys import SigningKey
    from tasks.storage.store import ObjectStore

    MakeStatement = Callable[[tuple[ReleaseFile, ...]], Statement]


NOTES = (CLAIM, DRAFT, REMOVAL)
"""What is noted beside a release: no part of it, and not signed."""


@dataclass(frozen=True)
class Seal:
    """How a release is made one that strangers can check."""

    statement_for: MakeStatement | None = None
    """Says where the files come from; absent: there will be no ``provenance.json``."""
    key: SigningKey | None = None
    """Absent: there will be no ``model.sig``."""

    @property
    def signing(self) -> Signing:
        """What the manifest must say of it."""
        if self.key is None:
            return Signing()
        return Signing(method="key", public_key=self.key.fingerprint)


def add_provenance(
    store: ObjectStore, root: str, files: tuple[ReleaseFile, ...], make: MakeStatement
) -> ReleaseFile:
    """Write ``provenance.json`` if there is none; return it.

    Raises:
        DigestMismatchError: An earlier try left one of other files.
    """
    from tasks.domain.provenance import Statement  # its types take 8 ms of every worker's start

    key = f"{root}{PROVENANCE}"
    content = make(files).text().encode()
    created = store.create(key, content)
    text = store.read(key)
    if created and text.content != content:
        raise DigestMismatchError.of(
            store.url(key), expected=sha256_of_bytes(content), got=sha256_of_bytes(text.content)
        )
    standing = parse_document(Statement, text.content, store.url(key))
    if standing.digests() != {each.path: each.sha256 for each in files}:
        raise _left_by_another(store.url(key))
    return ReleaseFile(
        path=PROVENANCE,
        sha256=sha256_of_bytes(text.content),
        size_bytes=len(text.content),
        etag=text.etag,
    )


def settle_manifest(store: ObjectStore, root: str, manifest: Manifest) -> bytes:
    """Return the bytes that this release's manifest has, or will have, whoever writes it.

    Raises:
        DigestMismatchError: An earlier try settled those of other files, or of another key.
    """
    key = f"{root}{DRAFT}"
    content = manifest.model_dump_json(indent=2).encode()
    if store.create(key, content):
        return content
    content = store.read(key).content
    standing = parse_document(Manifest, content, store.url(key))
    if (standing.files, standing.signing) != (manifest.files, manifest.signing):
        raise _left_by_another(store.url(key))
    return content


def add_signature(store: ObjectStore, root: str, manifest: bytes, key: SigningKey) -> None:
    """Sign all files and the manifest, if that is not done; hold what stands there to it.

    Raises:
        DigestMismatchError: What stands there is not the key's signature of this release.
    """
    store.create(f"{KEYS}/{key.fingerprint}.pem", key.public_pem.encode(), "text/plain")
    where = store.url(f"{root}{SIGNATURE}")
    named = parse_document(Manifest, manifest, where).files
    digests = {each.path: each.sha256 for each in named} | {MANIFEST: sha256_of_bytes(manifest)}
    content = sign(root.rstrip("/"), digests, (*NOTES, SIGNATURE), key)
    store.create(f"{root}{SIGNATURE}", content)
    standing = store.read(f"{root}{SIGNATURE}").content
    try:
        signed = signed_digests(standing, key.public_pem, where)
    except SigningError as error:
        raise _left_by_another(where) from error
    if signed != digests:
        raise _left_by_another(where)


def _left_by_another(where: str) -> DigestMismatchError:
    return DigestMismatchError(
        f"{where}: is of another release than this one. An earlier try left it there. Publish "
        "under another version; nothing that was written is overwritten."
    )
