"""A signature vouches for what was signed, and a byte changed anywhere in it is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from tasks.domain.errors import SigningError
from tasks.settings import LocalSettings
from tasks.storage.keys import SigningKey, signing_key
from tasks.storage.places import SIGNATURE
from tasks.storage.signing import sign, signed_digests

if TYPE_CHECKING:
    from pathlib import Path

DIGESTS = {"onnx/model.onnx": "1" * 64, "manifest.json": "2" * 64}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    made = signing_key(LocalSettings(signing_key=tmp_path_factory.mktemp("keys") / "signing.pem"))
    assert made is not None
    return made


@pytest.fixture(scope="module")
def signature(key: SigningKey) -> bytes:
    return sign("release", DIGESTS, (SIGNATURE,), key)


def test_a_signature_vouches_for_every_digest(key: SigningKey, signature: bytes) -> None:
    assert signed_digests(signature, key.public_pem, "model.sig") == DIGESTS


def test_the_package_itself_verifies_it_on_the_real_files(key: SigningKey, tmp_path: Path) -> None:
    from model_signing import verifying

    release = tmp_path / "release"
    (release / "onnx").mkdir(parents=True)
    contents = {"onnx/model.onnx": b"onnx", "manifest.json": b"{}"}
    for path, content in contents.items():
        (release / path).write_bytes(content)
    digests = {path: hashlib.sha256(each).hexdigest() for path, each in contents.items()}
    (release / SIGNATURE).write_bytes(sign("x", digests, (SIGNATURE, ".claim.json"), key))
    (release / ".claim.json").write_bytes(b"the publisher's own")
    public_key = key.path.with_name("signing.pem.pub")
    config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)

    config.verify(release, release / SIGNATURE)
    (release / "onnx/model.onnx").write_bytes(b"Onnx")

    with pytest.raises(ValueError, match=r"Hash mismatch for .*onnx/model\.onnx"):
        config.verify(release, release / SIGNATURE)


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_no_byte_of_a_signature_can_be_flipped(key: SigningKey, signature: bytes, bit: int) -> None:
    accepted = []

    for place in range(len(signature)):
        flipped = bytearray(signature)
        flipped[place] ^= 1 << bit
        try:
            signed_digests(bytes(flipped), key.public_pem, "model.sig")
        except SigningError:
            continue
        accepted.append(place)

    assert accepted == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b'"text"', b'{"dsseEnvelope": 3}', b"\xff\xfe"],
)
def test_what_is_no_signature_is_said_to_be_none(key: SigningKey, content: bytes) -> None:
    with pytest.raises(SigningError, match=r"^model\.sig: not a signature"):
        signed_digests(content, key.public_pem, "model.sig")


def test_a_signature_of_another_key_is_refused(signature: bytes, tmp_path: Path) -> None:
    other = signing_key(LocalSettings(signing_key=tmp_path / "other.pem"))
    assert other is not None

    with pytest.raises(SigningError, match="signed by another key"):
        signed_digests(signature, other.public_pem, "model.sig")


def test_a_forger_who_writes_the_right_keys_name_is_refused(
    key: SigningKey, tmp_path: Path
) -> None:
    forger = signing_key(LocalSettings(signing_key=tmp_path / "forger.pem"))
    assert forger is not None
    forged = json.loads(sign("release", DIGESTS, (SIGNATURE,), forger))
    forged["verificationMaterial"]["publicKey"]["hint"] = key.fingerprint
    content = json.dumps(forged, separators=(",", ":")).encode()

    with pytest.raises(SigningError, match="not what the key's owner signed"):
        signed_digests(content, key.public_pem, "model.sig")
