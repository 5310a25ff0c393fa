"""Signatures of whole releases, as OpenSSF model signing makes and reads them.

Both ways go through the package's own front door, with one change: it is told the files'
digests, which publishing and verifying have at hand, instead of reading every file again.
"""

from __future__ import annotations

import base64
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.domain.errors import SigningError
from tasks.storage.keys import fingerprint_of
from tasks.storage.places import SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_signing.hashing import Config

    from tasks.storage.keys import SigningKey

_PREDICATE = "https://model_signing/signature/v1.0"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"


def sign(name: str, digests: Mapping[str, str], outside: tuple[str, ...], key: SigningKey) -> bytes:
    """Return the signature of a folder: a Sigstore bundle in JSON.

    Args:
        name: What the folder is called; no verifier holds it to that.
        digests: SHA-256 of every file in it, by its path.
        outside: Paths that may stand in the folder too, and are not signed.
        key: The signer's.
    """
    from model_signing import signing

    with tempfile.TemporaryDirectory(prefix="signing-") as folder:
        path = Path(folder) / SIGNATURE
        config = signing.Config().use_elliptic_key_signer(private_key=key.path)
        config.set_hashing_config(_known(digests, outside)).sign(name, path)
        return path.read_bytes()


def signed_digests(content: bytes, public_pem: str, where: str) -> dict[str, str]:
    """Return what a signature vouches for: SHA-256 by path, once it is proven to be the key's.

    A bundle is taken in one spelling alone, so that a byte changed anywhere in it is noticed,
    even one that the signature itself does not cover.

    Args:
        content: The signature's file.
        public_pem: Of the key that must have signed.
        where: The first words of an error.

    Raises:
        SigningError: It is no such signature, or not of this key, or of something else.
    """
    from model_signing import verifying

    got, digests = _read(content, where)
    expected = fingerprint_of(public_pem)
    if got != expected:
        message = (
            f"{where}: signed by another key (expected {expected[:12]}, got {got[:12]}). Get the "
            "signer's public key from the signer, not from where the release was."
        )
        raise SigningError(message)
    with tempfile.TemporaryDirectory(prefix="verifying-") as folder:
        signature, key = Path(folder) / SIGNATURE, Path(folder) / "key.pub"
        signature.write_bytes(content)
        key.write_text(public_pem)
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
        try:
            # the tree is not looked at here: only whether the key's owner signed these digests
            config.set_hashing_config(_known(digests, ())).verify("release", signature)
        except Exception as error:
            message = f"{where}: not what the key's owner signed. It was changed since, or forged."
            raise SigningError(message) from error
    return digests


def _known(digests: Mapping[str, str], outside: tuple[str, ...]) -> Config:
    """Return a way of hashing that answers at once, from digests that are known already."""
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import Digest

    serialization = manifest.SerializationType.from_args(
        {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": list(outside),
        }
    )

    class Known(hashing.Config):  # type: ignore[misc]
        def hash(self, model_path: object, *, files_to_hash: object = None) -> manifest.Manifest:
            del files_to_hash
            items = [
                serialization.new_item(path, Digest("sha256", bytes.fromhex(digest)))
                for path, digest in sorted(digests.items())
            ]
            return manifest.Manifest(str(model_path), items, serialization)

    return Known()


def _read(content: bytes, where: str) -> tuple[str, dict[str, str]]:
    """Return whose a bundle claims to be, and the digests in it; both as yet unproven."""
    with suppress(ValueError, KeyError, IndexError, TypeError):
        bundle = json.loads(content)
        payload = base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True)
        signature = bundle["dsseEnvelope"]["signatures"][0]["sig"]
        hint = str(bundle["verificationMaterial"]["publicKey"]["hint"])
        only: dict[str, Any] = {
            "mediaType": _BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": _spelled(payload),
                "payloadType": _PAYLOAD,
                "signatures": [{"sig": _spelled(base64.b64decode(signature)), "keyid": ""}],
            },
        }
        statement = json.loads(payload)
        resources = statement["predicate"]["resources"]
        digests = {str(each["name"]): str(each["digest"]) for each in resources}
        same = content == json.dumps(only, separators=(",", ":")).encode()
        if same and statement["predicateType"] == _PREDICATE:
            return hint, digests
    message = (
        f"{where}: not a signature as this program writes it (expected a Sigstore bundle of a "
        "model signed by a key pair). It was changed since, or made by other means: see "
        "docs/trust.md."
    )
    raise SigningError(message)


def _spelled(content: bytes) -> str:
    return base64.b64encode(content).decode()
