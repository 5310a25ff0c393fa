"""No false hit: whatever decides what a release will be changes its fingerprint."""

from __future__ import annotations

import ast
import json
import random
import shutil
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks import fingerprint as module
from tasks.catalogue import load_recipe, recipe_names
from tasks.converters import all_converters
from tasks.domain.errors import ConfigurationError
from tasks.domain.profiles import PROFILES, Profile
from tasks.domain.recipe import Recipe
from tasks.fingerprint import (
    CODE_FOLDERS,
    FORMAT_TOOLS,
    PICTURE_TOOLS,
    SEARCH_TOOLS,
    SOURCE_TOOLS,
    STAGES,
    code_digest,
    fingerprint_of,
)
from tasks.storage.digest import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.domain.fingerprint import Fingerprint
    from tasks.domain.parity import Tolerance

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
NAMES = recipe_names(MODELS)


def recipe(name: str) -> Recipe:
    return load_recipe(name, MODELS)


def changed(value: object) -> object:
    """Return another value of the same kind, or of another where that kind has only one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return {"new": 1} if isinstance(value, dict) else ["new"]


def flipped(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path of every leaf, with a copy of the whole in which only that leaf differs."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from ((f".{key}{path}", value | {key: other}) for path, other in flipped(each))
    elif isinstance(value, list) and value:
        for i, each in enumerate(value):
            around = value[:i], value[i + 1 :]
            for path, other in flipped(each):
                yield f"[{i}]{path}", [*around[0], other, *around[1]]
    else:
        yield "", changed(value)


def unchecked(dump: dict[str, Any]) -> Recipe:
    """Return a recipe with any content: what is flipped need not make sense as a recipe."""

    class Unchecked(Recipe):
        def model_dump(self, **_: Any) -> dict[str, Any]:
            return dump

    return Unchecked.model_construct(**dict(recipe("iris-random-forest")))


@pytest.mark.parametrize("name", NAMES)
def test_every_leaf_of_a_recipe_changes_it(name: str) -> None:
    dump = recipe(name).model_dump(mode="json")
    seen = {fingerprint_of(unchecked(dump)).digest}

    for path, other in flipped(dump):
        digest = fingerprint_of(unchecked(other)).digest
        assert digest not in seen, path
        seen.add(digest)

    assert len(seen) > 40


@pytest.mark.parametrize("name", NAMES)
def test_a_field_that_is_left_out_or_added_changes_it(name: str) -> None:
    dump = recipe(name).model_dump(mode="json")
    digests = {fingerprint_of(unchecked(dump)).digest}

    digests |= {
        fingerprint_of(unchecked({k: v for k, v in dump.items() if k != gone})).digest
        for gone in dump
    }
    digests.add(fingerprint_of(unchecked(dump | {"field": None})).digest)

    assert len(digests) == len(dump) + 2


def in_another_order(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, in_another_order(each, chance)) for key, each in value.items()]
        chance.shuffle(items)
        return dict(items)
    return [in_another_order(e, chance) for e in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
def test_the_order_in_which_a_recipe_is_written_changes_nothing(name: str) -> None:
    one = recipe(name)
    dump = in_another_order(one.model_dump(mode="json"), random.Random(1))

    other = Recipe.model_validate_json(json.dumps(dump))

    assert fingerprint_of(other) == fingerprint_of(one)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recipe_leaves_out_is_what_it_would_be_if_written(name: str) -> None:
    one = recipe(name)

    short = Recipe.model_validate(one.model_dump(mode="json", exclude_unset=True))
    written = Recipe.model_validate(one.model_dump(mode="json"))

    assert fingerprint_of(short) == fingerprint_of(written)


def parts_with(made: Fingerprint, beginning: str) -> list[str]:
    return [name.removeprefix(beginning) for name in made.parts if name.startswith(beginning)]


@pytest.mark.parametrize("name", NAMES)
def test_the_version_of_every_tool_that_matters_changes_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, real = recipe(name), module._version
    before = fingerprint_of(one)
    tools = [tool for tool in parts_with(before, "tool ") if tool != "python"]

    for tool in tools:

        def other(asked: str, folder: Path | None = None, tool: str = tool) -> str | None:
            return "0.0.1" if asked == tool else real(asked, folder)

        monkeypatch.setattr(module, "_version", other)
        (change,) = fingerprint_of(one).changes_since(before)
        assert change == f"{tool} {before.parts[f'tool {tool}']} -> 0.0.1"

    assert {"numpy", "onnx", "onnxruntime"} <= set(tools)


def test_another_python_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint_of(recipe("resnet50"))

    monkeypatch.setattr("platform.python_version", lambda: "3.11.999")

    (change,) = fingerprint_of(recipe("resnet50")).changes_since(before)
    assert change.endswith("-> 3.11.999")


@pytest.mark.parametrize(
    ("name", "needed", "free_of"),
    [
        ("profanity", {"scikit-learn", "skl2onnx", "joblib"}, {"torch", "tensorflow", "onnx-tf"}),
        ("iris-random-forest", {"scikit-learn", "tensorflow", "onnx-tf", "tf-keras"}, {"torch"}),
        ("resnet50-seeded", {"torch", "torchvision", "onnxscript", "onnx-ir"}, {"scikit-learn"}),
        ("digits-cnn", {"torch", "scikit-learn"}, {"torchvision"}),
        ("mobilenet-v2", {"torch", "pillow"}, {"skl2onnx"}),
        ("dog-breeds", {"keras", "tensorflow", "tf2onnx"}, {"torch", "skl2onnx"}),
        ("basic-pitch", {"tf-keras", "tensorflow", "tf2onnx"}, {"torch", "keras", "onnx-tf"}),
    ],
)
def test_only_the_tools_that_matter_count(name: str, needed: set[str], free_of: set[str]) -> None:
    tools = set(parts_with(fingerprint_of(recipe(name)), "tool "))

    assert needed <= tools
    assert not free_of & tools


def test_a_tool_of_the_fallback_is_looked_up_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "onnx2tf-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnx2tf\nVersion: 1.2.3\n")
    for each in all_converters():
        if each.name == "onnx2tf":
            monkeypatch.setitem(each.__dict__, "tools_folder", tmp_path)

    made = fingerprint_of(recipe("iris-random-forest"))

    assert made.parts["tool onnx2tf"] == "1.2.3"


@pytest.mark.parametrize("number", ["rtol", "scale", "floor"])
@pytest.mark.parametrize("which", ["base", "probabilities"])
@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_the_tolerance_profile_changes_it(
    name: str, which: str, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(name)
    before, profile = fingerprint_of(one), PROFILES[one.parity.profile]
    tolerance: Tolerance = getattr(profile, which)
    other = tolerance.model_copy(update={number: 0.125})
    monkeypatch.setitem(
        PROFILES, one.parity.profile, Profile(**{**profile._asdict(), which: other})
    )

    (change,) = fingerprint_of(one).changes_since(before)

    assert change.startswith(f"parity.{which}.{number} ")
    assert change.endswith(" -> 0.125")


def test_the_factor_of_the_profile_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe("mobilenet-v2")
    before, profile = fingerprint_of(one), PROFILES["float32-conv"]
    monkeypatch.setitem(PROFILES, "float32-conv", profile._replace(constant_factor=11))

    (change,) = fingerprint_of(one).changes_since(before)

    assert change == "parity.constant_factor 10 -> 11"


@pytest.mark.parametrize("name", NAMES)
def test_every_part_of_our_own_code_changes_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, real = recipe(name), module._folder_digest
    before = fingerprint_of(one)
    folders = [each for each in parts_with(before, "code ") if each != "stages"]

    for folder in folders:

        def other(asked: Path, folder: str = folder) -> str:
            return "0" * 64 if asked == ROOT / folder else real(asked)

        monkeypatch.setattr(module, "_folder_digest", other)
        assert fingerprint_of(one).changes_since(before) == (f"code of {folder} changed",)

    assert {*CODE_FOLDERS, "tasks/converters"} <= set(folders)


def test_every_file_of_the_stages_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = module._stages_digest(), sha256_of
    digests = {before}

    for name in STAGES:

        def other(path: Path, name: str = name) -> str:
            return "0" * 64 if path == ROOT / name else real(path)

        monkeypatch.setattr(module, "sha256_of", other)
        digests.add(module._stages_digest.__wrapped__())

    assert len(digests) == len(STAGES) + 1


@pytest.mark.parametrize("folder", [*CODE_FOLDERS, "tasks/converters", "tasks/onnxtf"])
def test_every_file_of_a_package_changes_its_digest(folder: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert code_digest(copy) == code_digest(ROOT / folder)
    seen = {code_digest(copy)}

    for path in sorted(copy.rglob("*.py")):
        path.write_bytes(path.read_bytes() + b"\n")
        seen.add(code_digest(copy))
        path.rename(path.with_name(f"other_{path.name}"))
        seen.add(code_digest(copy))
    (copy / "table.json").write_text("{}")
    seen.add(code_digest(copy))

    assert len(seen) == 2 + 2 * len(list((ROOT / folder).rglob("*.py")))


def test_pythons_own_caches_do_not_change_a_digest(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("x = 1\n")
    before = code_digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "module.cpython-311.pyc").write_bytes(b"compiled")

    assert code_digest(tmp_path) == before


def test_code_that_has_no_part_in_a_recipe_does_not_count() -> None:
    of_sklearn = set(parts_with(fingerprint_of(recipe("profanity")), "code "))
    of_keras = set(parts_with(fingerprint_of(recipe("dog-breeds")), "code "))

    assert not {"tasks/onnxtf", "tasks/tf2onnx_lean"} & of_sklearn
    assert {"tasks/onnxtf", "tasks/tf2onnx_lean"} <= of_keras


def test_a_package_of_converters_of_ones_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint_of(recipe("profanity"))
    packages = ("tasks.converters", "tests.support.faulty_converters")
    monkeypatch.setattr(module, "converter_packages", lambda: packages)

    changes = fingerprint_of(recipe("profanity")).changes_since(before)

    assert changes == ("code of tests/support/faulty_converters is new",)


def test_a_package_of_converters_that_there_is_not_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "converter_packages", lambda: ("no_such_package",))

    with pytest.raises(ConfigurationError, match="'no_such_package' is not a package"):
        fingerprint_of(recipe("profanity"))


# --- nothing forgotten --------------------------------------------------------------------------

NOT_IN_IT = {
    "catalogue.py": "reads recipes, which are in it leaf by leaf",
    "faults.py": "words for bad recipes",
    "fetch": "what comes is compared with the digest in the recipe",
    "field_docs.py": "describes fields in schemas",
    "fingerprint.py": "what it finds is in it",
    "golden.py": "checks what is published already",
    "gpu_stages.py": "says where a stage runs",
    "gpus.py": "shares out what GPUs there are",
    "graph": "draws a picture",
    "host.py": "says what machine this is",
    "locating.py": "explains what failed",
    "manifest_schema.py": "writes a schema",
    "outages.py": "bears with a server",
    "package_versions.py": "says what is installed",
    "pages.py": "pages for people",
    "perform.py": "does a stage that was sent, unchanged",
    "progress.py": "shows how far a stage is",
    "publish.py": "moves and describes bytes",
    "reproducers.py": "keeps what explains a failure",
    "remote.py": "sends a stage elsewhere, unchanged",
    "report": "pages for people",
    "restarts.py": "counts how often a run has crashed",
    "resume.py": "gives back what a stage made",
    "runtime.py": "lends stages their folder",
    "scratch.py": "makes and removes folders",
    "seal.py": "signs bytes",
    "selection.py": "says which models are meant",
    "serving": "lays out what is published already",
    "settings.py": "what differs between machines",
    "shrink.py": "explains what failed",
    "shrinking.py": "explains what failed",
    "standing.py": "compares fingerprints",
    "storage": "moves bytes, by their digests",
    "tracing": "explains what failed",
    "trees.py": "finds files in values",
    "upkeep.py": "looks after what is published already",
    "waiting.py": "waits for a stage elsewhere",
    "verify_release.py": "checks what is published already",
    "__init__.py": "is empty but for words",
}


def test_all_code_below_tasks_is_in_it_or_left_out_for_a_reason() -> None:
    of_converters = {name for each in all_converters() for name in each.code}
    known = {Path(name).name for name in (*CODE_FOLDERS, *STAGES) if name.startswith("tasks/")}
    known |= {"converters"} | {name.rpartition(".")[2] for name in of_converters}

    there = {
        path.name
        for path in (ROOT / "tasks").iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
    }

    assert there == known | NOT_IN_IT.keys()


def imported(folder: str) -> set[str]:
    """Return the top-level packages that the modules of a folder import, wherever they do."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"tasks", "__future__"}


def test_every_package_that_our_code_imports_in_children_is_among_the_tools() -> None:
    of_converters = [each for each in all_converters() if "converters" not in each.code]
    known = {tool for each in of_converters for tool in each.tools}
    known |= {
        *PICTURE_TOOLS,
        *SEARCH_TOOLS,
        *(tool for tools in SOURCE_TOOLS.values() for tool in tools),
    }
    known |= {tool for tools in FORMAT_TOOLS.values() for tool in tools}
    folders = [*CODE_FOLDERS, "tasks/converters", "tasks/onnxtf", "tasks/tf2onnx_lean"]
    distributions = packages_distributions()

    used = {
        distribution.lower().replace("_", "-")
        for folder in folders
        for name in imported(folder)
        for distribution in distributions.get(name, [name])
    }

    assert used - known == {"pydantic"}
