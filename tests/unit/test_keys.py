"""The signing key: made once, whoever asks first, and private."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tasks.domain.errors import ConfigurationError
from tasks.settings import LocalSettings
from tasks.storage.keys import SigningKey, read_public_key, signing_key

if TYPE_CHECKING:
    from pathlib import Path

_ASK = """
import sys
from pathlib import Path
from tasks.settings import LocalSettings
from tasks.storage.keys import signing_key
sys.stdin.readline()
print(signing_key(LocalSettings(signing_key=Path(sys.argv[1]))).fingerprint)
"""


def key_at(path: Path) -> SigningKey:
    key = signing_key(LocalSettings(signing_key=path))
    assert key is not None
    return key


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def test_the_key_is_made_at_first_use_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "signing.pem"

    first, again = key_at(path), key_at(path)

    assert first == again
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {each.name for each in path.parent.iterdir()} == {"signing.pem", "signing.pem.pub"}


def test_the_fingerprint_is_what_sha256sum_says_of_the_public_key(tmp_path: Path) -> None:
    key = key_at(tmp_path / "signing.pem")

    public = tmp_path / "signing.pem.pub"
    assert hashlib.sha256(public.read_bytes()).hexdigest() == key.fingerprint
    assert read_public_key(public) == key.public_pem


def test_of_processes_that_make_it_at_once_one_wins_and_all_use_its_key(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ASK, str(tmp_path / "keys" / "signing.pem")]
    asking = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]

    for each in asking:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    answers = {each.communicate(timeout=60)[0].strip() for each in asking}

    assert answers == {key_at(tmp_path / "keys" / "signing.pem").fingerprint}
    assert len(list((tmp_path / "keys").iterdir())) == 2


def test_signing_can_be_off(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"

    key = signing_key(LocalSettings(signing="off", signing_key=path))

    assert key is None
    assert not path.exists()


@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
def test_a_key_that_openssl_made_is_used_as_it_is(tmp_path: Path, curve: str) -> None:
    path = tmp_path / "mine.pem"
    openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", str(path))
    openssl("ec", "-in", str(path), "-pubout", "-out", str(tmp_path / "its.pub"))

    key = key_at(path)

    assert key.public_pem == (tmp_path / "its.pub").read_text()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param("genrsa -out FILE 2048", "expected an elliptic curve key", id="rsa"),
        pytest.param("ecparam -name secp256k1 -genkey -noout -out FILE", "secp256r1", id="curve"),
        pytest.param("rand -out FILE 100", "not a private key in PEM", id="noise"),
        pytest.param(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 "
            "-pass pass:secret -out FILE",
            "has a password",
            id="password",
        ),
    ],
)
def test_a_key_that_cannot_sign_is_named(tmp_path: Path, make: str, words: str) -> None:
    path = tmp_path / "bad.pem"
    openssl(*make.replace("FILE", str(path)).split())

    with pytest.raises(ConfigurationError, match=words) as caught:
        key_at(path)

    assert str(path) in str(caught.value)


def test_a_place_that_cannot_hold_a_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="CONVEYOR_SIGNING_KEY"):
        key_at(tmp_path / "file" / "signing.pem")


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n", os.urandom(64)])
def test_a_public_key_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pub"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"bad\.pub: not a public key"):
        read_public_key(path)


def test_a_public_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nobody\.pub: the public key cannot be read"):
        read_public_key(tmp_path / "nobody.pub")


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    key_at(tmp_path / "signing.pem")

    with pytest.raises(ConfigurationError, match="not a public key"):
        read_public_key(tmp_path / "signing.pem")
