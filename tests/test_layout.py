"""The house stands as drawn: our packages, no name taken twice, no framework in the parent."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("deployments", "flows", "tasks")
FRAMEWORKS = (
    "keras",
    "onnx",
    "onnxruntime",
    "onnx_tf",
    "onnx2tf",
    "skl2onnx",
    "sklearn",
    "tensorflow",
    "tf2onnx",
    "tf_keras",
    "torch",
    "torchvision",
)
MODULES = sorted(path.stem for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported_by(module: str) -> set[str]:
    """Return the top-level packages that a fresh process has after importing ``module``."""
    code = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return set(out.stdout.split())


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_that_python_finds_is_this_repositorys(package: str) -> None:
    found = importlib.import_module(package)

    assert found.__file__ == str(ROOT / package / "__init__.py")


def test_no_package_of_the_tests_can_pose_as_one_of_ours() -> None:
    found = {path.parent.name for path in (ROOT / "tests").rglob("__init__.py")}

    assert found & set(PACKAGES) == set()


def test_no_module_has_the_name_of_a_library() -> None:
    ours = {*PACKAGES, *MODULES} - {"__init__"}
    libraries = set(packages_distributions()) - set(PACKAGES)

    assert ours & (libraries | sys.stdlib_module_names) == set()


@pytest.mark.parametrize(
    "module", ["flows.release_model", "flows.release_catalog", "deployments.demo"]
)
def test_the_parent_process_imports_no_framework(module: str) -> None:
    imported = imported_by(module)

    assert module.partition(".")[0] in imported
    assert imported & set(FRAMEWORKS) == set()


def test_the_demo_does_not_wait_for_prefect_to_be_imported() -> None:
    assert "prefect" not in imported_by("deployments.demo")
