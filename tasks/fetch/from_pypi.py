"""``pypi:NAME==VERSION#MEMBER``: one member of a package, which is neither installed nor run.

``pip download`` would run the build of an sdist. This reads the pages that pip would read,
takes the archive, holds it to the digest that its index publishes, and copies one member out.
The archive stays in the cache, so that several members of a package cost one download.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from tasks.domain.digest import Digest
from tasks.domain.errors import AcquisitionError, ConfigurationError
from tasks.fetch import over_http
from tasks.fetch.cache import anew, kept
from tasks.fetch.from_file import path_of
from tasks.fetch.members import extract
from tasks.fetch.package_index import Archive, locations, look_up, ranked, route_to
from tasks.fetch.pip_settings import PipSettings, pip_settings
from tasks.fetch.transfer import Wanted
from tasks.fetch.wording import out_of_reach
from tasks.storage.digest import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

_FORM = re.compile(r"pypi:(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^#\s]+)#(?P<member>\S+)")


@dataclass
class _Search:
    """What was asked for, and what was found instead, to say so if all fails."""

    wanted: Wanted
    name: str
    version: str
    member: str
    unreachable: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def download(wanted: Wanted) -> None:
    """Bring the member to the part.

    Raises:
        AcquisitionError: No index in reach has the package, the version or the member.
        DownloadDigestError: An archive is not the one that its index announced.
        ConfigurationError: The uri is not of this form.
    """
    form = _FORM.fullmatch(wanted.uri)
    if not form:
        message = (
            f"{wanted.uri}: names no member of a package (expected pypi:NAME==VERSION#MEMBER, "
            "with a '/' at the end of a folder)."
        )
        raise ConfigurationError(message)
    search = _Search(wanted, form["name"], form["version"], form["member"])
    settings = pip_settings()
    for location in locations(settings):
        try:
            archives = look_up(location, search.name, settings)
        except AcquisitionError as error:
            search.unreachable.append(str(error))
            continue
        search.versions |= {each.version for each in archives}
        for archive in ranked(archives, search.version):
            if archive.filename not in search.opened and _take(search, archive, settings):
                return
    raise _explain(search)


def _take(search: _Search, archive: Archive, settings: PipSettings) -> bool:
    """Copy the member out of one archive; return whether it is there."""
    wanted = search.wanted
    path = _at_hand(archive, wanted, settings)
    search.opened.append(archive.filename)
    try:
        with anew(wanted.part):
            names = extract(path, search.member, wanted.part, is_wheel=archive.is_wheel)
    except AcquisitionError as error:
        message = f"{wanted.uri}: in {archive.filename}, {error}. Take another member or version."
        raise AcquisitionError(message) from error
    search.names += names
    return not names


def _at_hand(archive: Archive, wanted: Wanted, settings: PipSettings) -> Path:
    """Return the archive on this disk, held to the digest that its index publishes."""
    if archive.url.startswith("file:"):
        path = path_of(archive.url)
        if archive.sha256 in {None, sha256_of(path)}:
            return path
        message = (
            f"{wanted.uri}: {path} is not what its index announces (expected sha256 "
            f"{archive.sha256}). Mend the index."
        )
        raise AcquisitionError(message)
    if archive.sha256 is None:
        message = (
            f"{wanted.uri}: the index announces no sha256 for {archive.filename}, so it cannot "
            "be checked. Use an index that does, or download the file and use a file:// uri."
        )
        raise AcquisitionError(message)

    digest = Digest(algorithm="sha256", hexadecimal=archive.sha256)

    def bring(part: Path) -> None:
        target = Wanted(archive.url, digest, part, wanted.cache, wanted.on_progress)
        over_http.download(target, route_to(archive.url, settings))

    return kept(wanted.cache, digest, archive.url, bring)


def _explain(search: _Search) -> AcquisitionError:
    """Say how near the search came."""
    uri = search.wanted.uri
    missed = f" ({'; '.join(search.unreachable)})" if search.unreachable else ""
    if search.opened:
        near = difflib.get_close_matches(search.member, search.names, n=3, cutoff=0.4)
        base = search.member.rstrip("/").rpartition("/")[2]
        same = [name for name in search.names if name.endswith(f"/{base}")]
        shown = list(dict.fromkeys(same[:3] + near))[:4]
        return AcquisitionError(
            f"{uri}: no such member in {', '.join(search.opened)}. "
            f"Nearest: {', '.join(shown) or 'none'}."
        )
    if search.versions:
        known = ", ".join(sorted(search.versions, key=_order)[-8:])
        return AcquisitionError(
            f"{uri}: no such version of '{search.name}' (there are: {known}){missed}. "
            "Mend the version in the recipe."
        )
    if search.unreachable:
        reasons = "; ".join(search.unreachable)
        return AcquisitionError(out_of_reach(search.wanted, "the package index", reasons))
    return AcquisitionError(
        f"{uri}: no index that pip is configured with has a package '{search.name}'. "
        "Check its name, and 'pip config list'."
    )


def _order(version: str) -> tuple[bool, Version, str]:
    try:
        return True, Version(version), version
    except InvalidVersion:
        return False, Version("0"), version
