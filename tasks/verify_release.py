"""Check a published release with nothing but the signer's public key and read access.

    python -m tasks.verify_release MODEL [VERSION|ALIAS] --public-key FILE
    python -m tasks.verify_release --folder FOLDER --public-key FILE

One line for each check; the exit code is 0 if all hold, 1 if anything is wrong, with the
file's name, and 2 if it could not be checked. The bucket is that of CONVEYOR_STORE_*.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.domain.errors import ConfigurationError, ReleaseError
from tasks.domain.verification import Check, Verification
from tasks.golden import check_golden
from tasks.settings import local_settings, store_settings
from tasks.storage.fetching import fetch_release, find_release
from tasks.storage.keys import fingerprint_of, read_public_key
from tasks.storage.s3 import open_store
from tasks.storage.verifying import Expected, FolderCheck

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.storage.store import ObjectStore

WRONG, NOT_CHECKED = 1, 2


def verify_folder(
    folder: Path, public_key: Path, expected: Expected | None = None, where: str = ""
) -> Verification:
    """Check a release that lies in a folder.

    Args:
        folder: What was downloaded of ``<model>/<version>/``.
        public_key: PEM file of the signer's key.
        expected: What it must be.
        where: What to call the folder; absent: its path.

    Raises:
        ConfigurationError: There is no such folder, or the key's file is no public key.
    """
    if not folder.is_dir():
        message = f"{folder}: no such folder. Give the folder of one release."
        raise ConfigurationError(message)
    public_pem = read_public_key(public_key)
    subject = FolderCheck(folder, public_pem, expected or Expected())
    checks = subject.checks()
    golden = Check(name="golden", words="not run: the files are not proven", skipped=True)
    if subject.manifest and all(each.passed for each in checks):
        with tempfile.TemporaryDirectory(prefix="golden-", dir=local_settings().scratch) as scratch:
            golden = check_golden(subject.manifest, folder, Path(scratch))
    return Verification(
        where=where or str(folder),
        model=subject.manifest.model if subject.manifest else None,
        version=subject.manifest.version if subject.manifest else None,
        public_key=fingerprint_of(public_pem),
        checks=(*checks, golden),
    )


def verify_published(store: ObjectStore, model: str, which: str, public_key: Path) -> Verification:
    """Download a release into a temporary folder, and check it there.

    Args:
        store: Where it is published; read access is enough.
        model: Its name.
        which: A version number, or the name of an alias such as ``latest``.
        public_key: PEM file of the signer's key.

    Raises:
        ConfigurationError: The key's file is no public key.
        VerificationError: A key is not the path of a release's file.
        StorageError: There is no such release, or it could not be read.
    """
    read_public_key(public_key)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=local_settings().scratch) as temporary:
        expected = find_release(store, model, which)
        assert expected.version is not None  # noqa: S101 - it is a number, or the alias has one
        folder = Path(temporary) / model
        fetch_release(store, model, expected.version, folder)
        where = store.url(f"{model}/{expected.version}/")
        return verify_folder(folder, public_key, expected, where)


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add ``verify`` to a command line."""
    parser = subparsers.add_parser(
        "verify", help="check a published release with its signer's public key"
    )
    add_arguments(parser)
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` needs."""
    parser.add_argument("model", nargs="?", help="name of the model")
    parser.add_argument(
        "which", nargs="?", help="version or alias (default: latest, or whatever is in --folder)"
    )
    parser.add_argument(
        "--public-key", type=Path, required=True, metavar="FILE", help="the signer's, in PEM"
    )
    parser.add_argument("--folder", type=Path, help="check this folder instead of the bucket")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Check, print, and return the exit code."""
    try:
        verification = _verify(options)
    except ReleaseError as error:
        if options.json:
            _print(json.dumps({"passed": False, "error": str(error)}, indent=2))
        else:
            sys.stderr.write(f"{error}\n")
        unclear = isinstance(error, ConfigurationError) or error.transient
        return NOT_CHECKED if unclear else WRONG
    if options.json:
        verdict = {"passed": verification.passed, "wrong": verification.wrong}
        _print(json.dumps(verdict | verification.model_dump(mode="json"), indent=2))
    else:
        for check in verification.checks:
            _print(check.line())
        _print(f"{verification.where}: {'verified' if verification.passed else 'NOT verified'}")
    return 0 if verification.passed else WRONG


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.verify_release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def _verify(options: argparse.Namespace) -> Verification:
    if options.folder is None and options.model is None:
        message = "verify: nothing to check. Name a model, or give --folder."
        raise ConfigurationError(message)
    if options.folder is None:
        store = open_store(store_settings())
        return verify_published(store, options.model, options.which or "latest", options.public_key)
    if options.which and not options.which.isdecimal():
        message = f"verify: '{options.which}': a folder has no aliases. Give a version number."
        raise ConfigurationError(message)
    version = int(options.which) if options.which else None
    return verify_folder(options.folder, options.public_key, Expected(options.model, version))


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
