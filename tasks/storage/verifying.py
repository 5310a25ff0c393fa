"""Is a folder the release that its publisher signed? Each file is answered for by name.

The order is that of trust: the signature first, by a key that came from elsewhere; then the
files, by the digests that it vouches for; then what the files say of one another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.domain.errors import SigningError, StorageError
from tasks.domain.provenance import Statement
from tasks.domain.release import Alias, Manifest
from tasks.domain.verification import Check, Fault
from tasks.storage.digest import sha256_of
from tasks.storage.documents import parse_document
from tasks.storage.keys import fingerprint_of
from tasks.storage.places import MANIFEST, PROVENANCE, SIGNATURE, UNLISTED
from tasks.storage.sealing import NOTES
from tasks.storage.signing import signed_digests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tasks.domain.value import Value


@dataclass(frozen=True)
class Expected:
    """What the folder must hold, as far as it is known from outside."""

    model: str | None = None
    version: int | None = None
    alias: Alias | None = None


@dataclass
class FolderCheck:
    """The checks of one folder."""

    folder: Path
    public_pem: str
    expected: Expected = field(default_factory=Expected)

    def checks(self) -> tuple[Check, ...]:
        """Make every check but the golden inference, which wants a model that is proven."""
        made: list[Callable[[], Check]] = [self._signature, self._tree, self._listed]
        made += [self._identity, self._provenance]
        if self.expected.alias:
            made.append(self._alias)
        return tuple(each() for each in made)

    @cached_property
    def manifest(self) -> Manifest | None:
        """What ``manifest.json`` says; None where it cannot be read."""
        document, _ = self._document(Manifest, MANIFEST)
        return document if isinstance(document, Manifest) else None

    @cached_property
    def _digests(self) -> dict[str, str]:
        """SHA-256 of each file of the folder; empty for what is no plain file."""
        return {
            path.relative_to(self.folder).as_posix(): ""
            if path.is_symlink() or not path.is_file()
            else sha256_of(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_symlink() or not path.is_dir()
        }

    @cached_property
    def _signed(self) -> dict[str, str] | SigningError:
        """The digests that the signature vouches for, or why it does not."""
        try:
            content = (self.folder / SIGNATURE).read_bytes()
        except OSError:
            off = self.manifest and self.manifest.signing.method == "off"
            why = "missing; the manifest says that signing was off" if off else "missing"
            return SigningError(f"{SIGNATURE}: {why}")
        try:
            return signed_digests(content, self.public_pem, SIGNATURE)
        except SigningError as error:
            return error

    def _signature(self) -> Check:
        if isinstance(self._signed, SigningError):
            what = str(self._signed).removeprefix(f"{SIGNATURE}: ")
            return _check("signature", "", [Fault(path=SIGNATURE, what=what)])
        key = fingerprint_of(self.public_pem)[:12]
        return _check("signature", f"{SIGNATURE} is by the key {key}…")

    def _tree(self) -> Check:
        if isinstance(self._signed, SigningError):
            return Check(name="tree", words="nothing is vouched for", skipped=True)
        outside = {*NOTES, SIGNATURE}
        faults = _differences(self._signed, self._digests, outside, "the signature")
        return _check("tree", f"all {len(self._signed)} signed files are as signed", faults)

    def _doubtful(self, name: str, path: str) -> Check | None:
        """Skip a check by a document that is not as signed: it would accuse the wrong files."""
        if isinstance(self._signed, SigningError):
            return None
        if self._signed.get(path) == self._digests.get(path):
            return None
        return Check(name=name, words=f"{path} is not as signed, so not believed", skipped=True)

    def _listed(self) -> Check:
        if doubt := self._doubtful("files", MANIFEST):
            return doubt
        manifest, fault = self._document(Manifest, MANIFEST)
        if fault or not isinstance(manifest, Manifest):
            return _check("files", "", fault)
        digests = {each.path: each.sha256 for each in manifest.files}
        faults = _differences(digests, self._digests, {*UNLISTED}, "the manifest")
        size = sum(each.size_bytes for each in manifest.files)
        words = f"all {len(digests)} listed files are as listed, {size:,} bytes"
        return _check("files", words, faults)

    def _identity(self) -> Check:
        if doubt := self._doubtful("release", MANIFEST):
            return doubt
        manifest, expected = self.manifest, self.expected
        if manifest is None:
            return Check(name="release", words=f"{MANIFEST} cannot be read", skipped=True)
        faults = [
            f"is of {name} {got} (expected {want}): another release than was asked for"
            for name, want, got in (
                ("model", expected.model, manifest.model),
                ("version", expected.version, manifest.version),
            )
            if want is not None and want != got
        ]
        words = f"{manifest.model} version {manifest.version}"
        return _check("release", words, [Fault(path=MANIFEST, what=what) for what in faults])

    def _provenance(self) -> Check:
        if doubt := self._doubtful("provenance", PROVENANCE):
            return doubt
        statement, fault = self._document(Statement, PROVENANCE)
        if fault or not isinstance(statement, Statement):
            return _check("provenance", "", fault)
        subjects = statement.digests()
        faults = _differences(subjects, self._digests, {*UNLISTED, PROVENANCE}, PROVENANCE)
        run = statement.predicate.run_details.metadata.invocation_id or "no flow run"
        return _check("provenance", f"all {len(subjects)} files come from {run}", faults)

    def _alias(self) -> Check:
        alias = self.expected.alias
        assert alias is not None  # noqa: S101 - the caller has looked
        got = self._digests.get(MANIFEST, "")
        if (alias.model, alias.manifest_sha256) == (self.expected.model, got):
            return _check("alias", f"it names this {MANIFEST}")
        what = (
            f"not the one that the alias names (expected sha256 {alias.manifest_sha256[:12]} of "
            f"{alias.model}, got {got[:12] or 'none'})"
        )
        return _check("alias", "", [Fault(path=MANIFEST, what=what)])

    def _document(self, kind: type[Value], path: str) -> tuple[Value | None, list[Fault]]:
        try:
            return parse_document(kind, (self.folder / path).read_bytes(), path), []
        except OSError:
            return None, [Fault(path=path, what="missing")]
        except StorageError as error:
            return None, [Fault(path=path, what=str(error).removeprefix(f"{path}: "))]


def _check(name: str, words: str, faults: list[Fault] | None = None) -> Check:
    return Check(name=name, words=words, faults=tuple(faults or ()))


def _differences(
    expected: Mapping[str, str], got: Mapping[str, str], outside: set[str], by: str
) -> list[Fault]:
    """Name each file that is changed, missing or not named by ``by``."""
    faults = []
    for path in sorted(expected.keys() | (got.keys() - outside)):
        want, have = expected.get(path), got.get(path)
        if want == have:
            continue
        if want is None:
            what = f"is not named by {by}: it was added"
        elif have is None:
            what = f"missing; {by} names it"
        elif not have:
            what = "is not a plain file"
        else:
            what = f"changed (expected sha256 {want[:12]} by {by}, got {have[:12]})"
        faults.append(Fault(path=path, what=what))
    return faults
