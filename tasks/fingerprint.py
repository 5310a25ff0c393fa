"""The fingerprint of a recipe: what would be released now, known before any of it is made.

No framework is imported and nothing goes over the network. Downloads are pinned in the recipe
by their SHA-256; a trained model follows from the recipe with its seed, the data set (which
ships with scikit-learn, so it has its version), the tools and our own code.

What only moves and describes bytes (``tasks/fetch``, ``tasks/storage``, ``tasks/report``,
``tasks/publish.py``) is not in it: a new word in a report makes no new model. ``force`` does.
"""

from __future__ import annotations

import importlib.util
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.converters import Converter, converters_for
from tasks.domain.artifact import ModelFormat, sha256_of_tree
from tasks.domain.errors import ConfigurationError
from tasks.domain.fingerprint import CODE, TOOL, Fingerprint, leaves
from tasks.domain.profiles import PROFILES
from tasks.domain.recipe import Pictures, Recipe
from tasks.settings import converter_packages
from tasks.storage.digest import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.domain.profiles import Profile

_ROOT = Path(__file__).parents[1]

_ALWAYS = ("numpy", "onnx", "protobuf", "ml-dtypes", "onnxruntime", "onnxruntime-gpu")
"""Every model goes through an ONNX file and ONNX Runtime; of the last two, one is installed."""

FORMAT_TOOLS: dict[ModelFormat, tuple[str, ...]] = {
    ModelFormat.SKLEARN: ("scikit-learn", "scipy", "joblib", "skops"),
    ModelFormat.TORCH: ("torch",),
    ModelFormat.KERAS: ("tensorflow", "keras"),
    ModelFormat.SAVED_MODEL: ("tensorflow", "tf-keras"),
    ModelFormat.ONNX: _ALWAYS,
}
"""What reads, runs and writes each format; a converter names its own packages beside these."""

SOURCE_TOOLS: dict[str, tuple[str, ...]] = {
    "train-torch": ("scikit-learn",),
    "torchvision": ("torchvision",),
}
"""What a kind of source needs beside the tools of its format."""

PICTURE_TOOLS = ("pillow",)

SEARCH_TOOLS = ("hypothesis",)

SIMPLIFIER_TOOLS = ("onnxscript", "onnx-ir")

CODE_FOLDERS = (
    "tasks/domain",
    "tasks/sources",
    "tasks/runners",
    "tasks/steps",
    "tasks/variants",
)
"""Our own code that has a part in every release; the converters' packages come to it."""

STAGES = (
    "flows/attempting.py",
    "flows/proving.py",
    "flows/varying.py",
    "tasks/acquire.py",
    "tasks/arrays.py",
    "tasks/bisecting.py",
    "tasks/child.py",
    "tasks/diagnose.py",
    "tasks/export.py",
    "tasks/exporting.py",
    "tasks/isolation.py",
    "tasks/matrix.py",
    "tasks/noise.py",
    "tasks/parity.py",
    "tasks/replay.py",
    "tasks/vary.py",
    "tasks/verify.py",
)
"""The files that order the work; they make one part, ``code stages``."""


def fingerprint_of(recipe: Recipe) -> Fingerprint:
    """Return the fingerprint that a release of ``recipe`` would have if it were made now.

    Versions and digests of our own code are looked up once in a process.

    Raises:
        ConfigurationError: The recipe names a converter that there is not.
    """
    chain = _chain(recipe)
    converters = [each for target in chain for each in target]
    tools = _tools(recipe, converters)
    profile = recipe.parity.profile
    return Fingerprint.of(
        dict(leaves("recipe", recipe.model_dump(mode="json")))
        | dict(profile_leaves(PROFILES[profile]))
        | {
            f"converters.{target[0].makes}": ", ".join(each.name for each in target)
            for target in chain
        }
        | {f"{TOOL}{name}": tools[name] for name in tools}
        | {f"{TOOL}python": platform.python_version()}
        | {f"{CODE}{name}": digest for name, digest in _code(converters).items()}
    )


def profile_leaves(profile: Profile) -> Iterator[tuple[str, str]]:
    """Yield the numbers of a tolerance profile as parts."""
    return leaves(
        "parity",
        {
            "base": profile.base.model_dump(mode="json"),
            "probabilities": profile.probabilities.model_dump(mode="json"),
            "constant_factor": profile.constant_factor,
        },
    )


def code_digest(folder: Path) -> str:
    """Return one digest of all files below ``folder`` but Python's own caches."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return _digest_of(files, folder)


def _chain(recipe: Recipe) -> list[tuple[Converter, ...]]:
    """Return for each target, in the order in which they are made, the converters to try."""
    chain, parent = [], recipe.source_format
    for target in (ModelFormat.ONNX, ModelFormat.SAVED_MODEL):
        if target in recipe.targets:
            chain.append(converters_for(recipe, parent, target))
            parent = target
    return chain


def _tools(recipe: Recipe, converters: Sequence[Converter]) -> dict[str, str]:
    """Return the version of each installed package that this recipe's release depends on."""
    names = {*_ALWAYS, *SOURCE_TOOLS.get(recipe.source.kind, ())}
    for format_ in (recipe.source_format, *recipe.targets):
        names |= set(FORMAT_TOOLS[format_])
    if isinstance(recipe.parity.real, Pictures):
        names |= set(PICTURE_TOOLS)
    if recipe.parity.search != 0:
        names |= set(SEARCH_TOOLS)
    if recipe.simplify:
        names |= set(SIMPLIFIER_TOOLS)
    versions = {name: _version(name) for name in names}
    for each in converters:
        versions |= {name: _version(name, each.tools_folder) for name in each.tools}
    return {name: version for name, version in versions.items() if version is not None}


@cache
def _version(name: str, folder: Path | None = None) -> str | None:
    """Return a package's version, from ``folder`` if it stands apart; None if it is not there."""
    if folder is not None:
        found = list(metadata.distributions(name=name, path=[str(folder)]))
        return found[0].version if found else None
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _code(converters: Sequence[Converter]) -> dict[str, str]:
    """Return the digest of each part of our own code, and of the converters' packages."""
    packages = {name for each in converters for name in each.code}
    digests = {name: _folder_digest(_ROOT / name) for name in CODE_FOLDERS}
    for name in sorted({*converter_packages(), *packages}):
        digests[name.replace(".", "/")] = _folder_digest(_package_folder(name))
    return digests | {"stages": _stages_digest()}


@cache
def _folder_digest(folder: Path) -> str:
    return code_digest(folder)


@cache
def _stages_digest() -> str:
    return _digest_of([_ROOT / name for name in STAGES], _ROOT)


def _digest_of(files: Sequence[Path], root: Path) -> str:
    return sha256_of_tree((path.relative_to(root).as_posix(), sha256_of(path)) for path in files)


@cache
def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        message = (
            f"CONVEYOR_CONVERTER_PACKAGES: '{name}' is not a package that can be imported. "
            "Name packages whose modules are converters."
        )
        raise ConfigurationError(message)
    return Path(next(iter(spec.submodule_search_locations)))
