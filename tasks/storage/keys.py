"""The key pair that releases are signed with: made at first use, kept on this machine alone."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from tasks.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

    from tasks.settings import LocalSettings

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""Source: model-signing 1.1, ``_check_supported_ec_key``."""


@dataclass(frozen=True)
class SigningKey:
    """A private key's place, and the public half that everybody may have."""

    path: Path
    public_pem: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key's PEM: what ``sha256sum`` says of its file."""
        return fingerprint_of(self.public_pem)


def fingerprint_of(public_pem: str) -> str:
    """Return the name of a public key: SHA-256 of its PEM, in hexadecimal.

    Source: the ``hint`` of a model-signing bundle is computed alike.
    """
    return hashlib.sha256(public_pem.encode()).hexdigest()


def signing_key(settings: LocalSettings) -> SigningKey | None:
    """Return the key of these settings, made now if it is not there; None if signing is off.

    Raises:
        ConfigurationError: It cannot be read or made, or is not a key to sign with.
    """
    if settings.signing == "off":
        return None
    path = settings.signing_key.expanduser()
    try:
        if not path.exists():
            _make(path)
        content = path.read_bytes()
    except OSError as error:
        message = (
            f"{path}: the signing key can be neither read nor made ({error.strerror}). Set "
            "CONVEYOR_SIGNING_KEY to a file that this user may read, or CONVEYOR_SIGNING=off."
        )
        raise ConfigurationError(message) from error
    public_pem = _pem(_parse(path, content).public_key())
    beside = path.with_name(f"{path.name}.pub")
    if not beside.exists():
        with suppress(OSError):  # a mounted secret's folder is not to be written to
            _write(beside, public_pem.encode(), 0o644)
    return SigningKey(path, public_pem)


def read_public_key(path: Path) -> str:
    """Return a public key's PEM, as this program writes it.

    Raises:
        ConfigurationError: The file is something else.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        message = f"{path}: the public key cannot be read ({error.strerror}). Give its file."
        raise ConfigurationError(message) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        message = f"{path}: not a public key in PEM. Give the signer's '.pub' file."
        raise ConfigurationError(message) from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise ConfigurationError(_wrong_curve(path))
    return _pem(key)


def _make(path: Path) -> None:
    """Write a new private key, unless another process is faster: then its key stays."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(path, content, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a whole file under a name that is free; leave the one that stands there."""
    draft = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            file.write(content)
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)


def _parse(path: Path, content: bytes) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        message = f"{path}: the signing key has a password. Give one without, in a file of 0600."
        raise ConfigurationError(message) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        message = (
            f"{path}: not a private key in PEM. Give another file as CONVEYOR_SIGNING_KEY, or "
            "one that does not exist: a key is made there."
        )
        raise ConfigurationError(message) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise ConfigurationError(_wrong_curve(path))
    return key


def _wrong_curve(path: Path) -> str:
    return (
        f"{path}: not a key that releases are signed with (expected an elliptic curve key on "
        f"{', '.join(_CURVES)}). Give another one."
    )


def _pem(key: EllipticCurvePublicKey) -> str:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
