"""The set-up says clearly what it lacks, and the locks are whole."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"dev": ("cpu", "local", "dev"), "cpu": ("cpu",), "gpu": ("gpu",)}
EXPECTED_STEPS = ("making .venv", "installing the packages", "installing this project")


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project whose lock is empty, which installs in seconds."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "dev.txt").write_text("")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\n")
    return tmp_path


def pinned(lock: str) -> dict[str, Version]:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    return {
        name: Version(version)
        for name, version in re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==(\S+)", text, re.MULTILINE)
    }


def declared(extras: tuple[str, ...]) -> list[Requirement]:
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_what_the_project_declares(lock: str) -> None:
    versions = pinned(lock)

    wrong = [
        str(each)
        for each in declared(LOCKS[lock])
        if each.name.lower() not in versions
        or not each.specifier.contains(versions[each.name.lower()], prereleases=True)
    ]

    assert wrong == [], f"requirements/{lock}.txt is stale: run 'make lock'"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_is_pinned_by_hashes(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()

    entries = [
        each for each in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE) if "==" in each
    ]

    assert len(entries) > 100
    assert all("--hash=sha256:" in each for each in entries)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()

    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_one_environment_has_one_onnx_runtime(lock: str) -> None:
    assert len({"onnxruntime", "onnxruntime-gpu"} & set(pinned(lock))) == 1


def test_another_python_is_refused_in_words(installer: ModuleType) -> None:
    with pytest.raises(installer.SetupError, match=r"Python 3\.13 is not supported.*python3\.11"):
        installer.check_python((3, 13))


def test_a_full_disk_is_noticed_before_anything_is_installed(
    installer: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(installer.SetupError, match=r"3\.0 GB are free \(expected 12 GB"):
        installer.check_disk(tmp_path, free_bytes=3_000_000_000)


def test_what_is_installed_depends_on_the_lock(installer: ModuleType, project: Path) -> None:
    before = installer.fingerprint(project)

    (project / "requirements" / "dev.txt").write_text("six==1.17.0\n")

    assert installer.fingerprint(project) != before
    assert installer.fingerprint(project) == installer.fingerprint(project)


@pytest.mark.parametrize("name", ["onnx2tf", "ministack"])
def test_what_pins_other_versions_is_installed_apart_where_it_has_a_lock(
    installer: ModuleType, project: Path, name: str
) -> None:
    assert tuple(words for words, _ in installer.steps(project)) == EXPECTED_STEPS

    (project / "requirements" / f"{name}.txt").write_text("")

    words, command = installer.steps(project)[-1]
    assert words == f"installing {name}, apart"
    assert command[command.index("--target") + 1] == str(project / ".venv" / name)


def test_a_failed_step_shows_the_end_of_its_log(installer: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such package')"]

    with pytest.raises(installer.SetupError, match=r"a step: failed \(exit code 1\)(.|\n)*no such"):
        installer.run("a step", command, tmp_path / "log")


def test_a_failed_setup_is_tried_again_and_a_good_one_is_not(
    installer: ModuleType,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [sys.executable, "-c", "print('done')"]
    broken = [("a broken step", [sys.executable, "-c", "import sys; sys.exit(1)"])]
    sound = [("a step", command)]

    monkeypatch.setattr(installer, "steps", lambda _: broken)
    with pytest.raises(installer.SetupError):
        installer.install(project)
    monkeypatch.setattr(installer, "steps", lambda _: sound)
    installer.install(project)
    installer.install(project)

    assert capsys.readouterr().out.count("  a step:") == 1


def test_make_alone_says_what_there_is() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)

    for target in ("demo", "up", "test", "check", "lock", "bench", "clean"):
        assert f"make {target}" in done.stdout


def test_continuous_integration_runs_what_people_run() -> None:
    script = ROOT / ".ci" / "run"

    commands = [line for line in script.read_text().splitlines() if not line.startswith("#")]

    assert commands[-1] == "exec make test"
    assert os.access(script, os.X_OK)
