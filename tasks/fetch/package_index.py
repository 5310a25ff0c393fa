"""What an index, or a folder of archives, has of a package; nothing is installed or run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import httpx
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from tasks.domain.errors import AcquisitionError
from tasks.fetch import over_http
from tasks.fetch.from_file import path_of
from tasks.fetch.wording import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.tags import Tag
    from pypi_simple import DistributionPackage

    from tasks.fetch.pip_settings import PipSettings

_PAGES = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"  # noqa: E501


@dataclass(frozen=True)
class Location:
    """One place where pip looks."""

    address: str
    """URL, or path of a folder."""
    is_index: bool
    """Whether packages have pages of their own below it (PEP 503)."""

    @property
    def folder(self) -> Path | None:
        """The folder on this machine, if it is one."""
        if self.address.startswith("file:"):
            return path_of(self.address)
        return None if "://" in self.address else Path(self.address).expanduser()


@dataclass(frozen=True)
class Archive:
    """A wheel or sdist that can be had."""

    filename: str
    version: str
    url: str
    """``https:`` or ``file:``."""
    sha256: str | None
    """As the index publishes it; a folder publishes none."""

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel, whose members stand under their own names."""
        return self.filename.endswith(".whl")


def locations(settings: PipSettings) -> list[Location]:
    """Return where to look: what is on this machine first, then as pip orders it."""
    links = [Location(address, is_index=False) for address in settings.find_links]
    indexes = [Location(address.rstrip("/"), is_index=True) for address in settings.indexes]
    return sorted(links + indexes, key=lambda each: each.folder is None)


def route_to(url: str, settings: PipSettings) -> over_http.Route:
    """Return the way that pip is told to take to ``url``."""
    parts = urlsplit(url)
    trusted = {parts.hostname, parts.netloc.rpartition("@")[2]} & set(settings.trusted_hosts)
    return over_http.Route(settings.ca_file, settings.proxy, trusted=bool(trusted))


def look_up(location: Location, name: str, settings: PipSettings) -> list[Archive]:
    """Return every archive of the package at one location; none if it has no such package.

    Raises:
        AcquisitionError: The location cannot be read.
    """
    from pypi_simple import ProjectPage

    name = canonicalize_name(name)
    if location.folder is not None and not location.is_index and location.folder.is_dir():
        return _in_folder(location.folder, name)
    address = f"{location.address}/{name}/" if location.is_index else location.address
    page = _read_page(Location(address, location.is_index), settings)
    if page is None:
        return []
    content, kind, url = page
    try:
        if kind.endswith("+json"):
            project = ProjectPage.from_json_data(httpx.Response(200, content=content).json(), url)
        else:
            project = ProjectPage.from_html(name, content, url)
    except ValueError as error:
        message = f"{redacted(address)}: not a page of a package index ({error})"
        raise AcquisitionError(message) from error
    return _archives(project.packages, name, location.address)


def ranked(archives: Iterable[Archive], version: str) -> list[Archive]:
    """Return the archives worth opening for ``version``, best first.

    These are the wheel that fits this interpreter best, a wheel for everybody, any other
    wheel if there is neither, and the sdist.
    """
    fitting = [each for each in archives if _same(each.version, version)]
    order = {tag: position for position, tag in enumerate(sys_tags())}

    def rank(wheel: Archive) -> int:
        return min((order.get(tag, sys.maxsize) for tag in _tags(wheel)), default=sys.maxsize)

    wheels = sorted((each for each in fitting if each.is_wheel), key=rank)
    best = wheels[:1] + [each for each in wheels[1:] if each.filename.endswith("-none-any.whl")]
    return best + [each for each in fitting if not each.is_wheel]


def _in_folder(folder: Path, name: str) -> list[Archive]:
    found = []
    for path in sorted(folder.iterdir()):
        project, version = _parsed(path.name, name)
        if project == name and version:
            found.append(Archive(path.name, version, path.absolute().as_uri(), None))
    return found


def _parsed(filename: str, name: str) -> tuple[str | None, str | None]:
    from pypi_simple import UnparsableFilenameError, parse_filename

    try:
        project, version, kind = parse_filename(filename, name)
    except UnparsableFilenameError:
        return None, None
    return (canonicalize_name(project), version) if kind in {"wheel", "sdist"} else (None, None)


def _read_page(location: Location, settings: PipSettings) -> tuple[bytes, str, str] | None:
    """Return content, content type and final address of a page; None if there is none."""
    folder = location.folder
    if folder is not None:
        file = (folder / "index.html" if location.is_index else folder).absolute()
        return (file.read_bytes(), "text/html", file.as_uri()) if file.is_file() else None
    try:
        with over_http.open_client(route_to(location.address, settings)) as client:
            answer = client.get(location.address, headers={"Accept": _PAGES})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        message = f"{redacted(location.address)}: cannot be reached ({reason})"
        raise AcquisitionError(message) from error
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    if not answer.is_success:
        message = f"{redacted(location.address)}: answered {answer.status_code}"
        raise AcquisitionError(message)
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    return answer.content, kind, str(answer.url)


def _archives(packages: Iterable[DistributionPackage], name: str, location: str) -> list[Archive]:
    found = []
    for each in packages:
        project, version = _parsed(each.filename, name)
        if project == name and version:
            url = _with_credentials(each.url, location)
            found.append(Archive(each.filename, version, url, each.digests.get("sha256")))
    return found


def _with_credentials(url: str, index: str) -> str:
    """Carry the index's user and password over to a file on the same host, as pip does."""
    target, source = urlsplit(url), urlsplit(index)
    if "@" in source.netloc and source.hostname == target.hostname and "@" not in target.netloc:
        user = source.netloc.rpartition("@")[0]
        target = target._replace(netloc=f"{user}@{target.netloc}")
    return urlunsplit(target)


def _same(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _tags(wheel: Archive) -> frozenset[Tag]:
    try:
        return parse_wheel_filename(wheel.filename)[3]
    except InvalidWheelFilename:
        return frozenset()
