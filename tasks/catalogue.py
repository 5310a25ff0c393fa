"""The catalogue: one recipe a file, ``models/<name>.yaml``, and one error a bad file.

``python -m tasks.catalogue check [NAMES]`` validates recipes, ``… schema`` writes the JSON
Schema by which editors complete them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from tasks.domain.errors import ConfigurationError
from tasks.domain.recipe import Recipe
from tasks.domain.waivers import expired, today_in_utc
from tasks.faults import Fault, find_faults, nearest

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from datetime import date

SCHEMA_FILE = "recipe.schema.json"
_FOLDER = Path("models")


def load_recipe(name: str, folder: Path, today: date | None = None) -> Recipe:
    """Read and validate ``<folder>/<name>.yaml``, to release it.

    Args:
        name: The recipe's.
        folder: Where the recipes are.
        today: The day by which waivers expire; absent: today's in UTC.

    Raises:
        ConfigurationError: No recipe has this name, its file is not right, or a waiver in it
            has expired; the message has one line for each fault, with file, line, field, what
            was expected and what was got.
    """
    known = recipe_names(folder)
    if name not in known:
        message = (
            f"{folder}: no recipe is called '{name}'.{nearest(name, known)} "
            f"There {'is' if len(known) == 1 else 'are'}: {', '.join(known) or 'none'}."
        )
        raise ConfigurationError(message)
    path = folder / f"{name}.yaml"
    recipe = _read(path)
    if faults := expired(recipe.waivers, today or today_in_utc()):
        listed = [Fault(("waivers", i, "expires"), what) for i, what in faults]
        raise ConfigurationError(_listed(path, _compose(path), listed))
    return recipe


def load_catalogue(folder: Path) -> tuple[Recipe, ...]:
    """Read and validate every recipe of ``folder``, in the order of their names.

    Waivers may have expired: that is for the run of their own model to say, not for all.

    Raises:
        ConfigurationError: At least one file is not right; every fault of every file is listed.
    """
    recipes, messages = [], []
    for name in recipe_names(folder):
        try:
            recipes.append(_read(folder / f"{name}.yaml"))
        except ConfigurationError as error:
            messages.append(str(error))
    if messages:
        raise ConfigurationError("\n".join(messages))
    return tuple(recipes)


def recipe_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the recipes in ``folder``, sorted.

    Raises:
        ConfigurationError: There is no such folder.
    """
    if not folder.is_dir():
        message = f"{folder}: no such folder. Set CONVEYOR_CATALOGUE to the folder of the recipes."
        raise ConfigurationError(message)
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def schema_text() -> str:
    """Return the JSON Schema of a recipe file, as it is kept beside the recipes."""
    from tasks.field_docs import describe_fields

    schema = Recipe.model_json_schema(mode="validation")
    describe_fields(schema, Recipe)
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


# --- one file -------------------------------------------------------------------------------


def _read(path: Path) -> Recipe:
    node = _compose(path)
    try:
        recipe = Recipe.model_validate_json(_as_json(path, node), strict=True)
    except ValidationError as error:
        raise ConfigurationError(_listed(path, node, find_faults(error, Recipe))) from error
    if recipe.name != path.stem:
        what = f"must be the file's name (expected '{path.stem}', got '{recipe.name}')."
        raise ConfigurationError(_listed(path, node, [Fault(("name",), what)]))
    return recipe


def _listed(path: Path, node: yaml.Node, faults: list[Fault]) -> str:
    """Write one line for each fault, in the order in which they stand in the file."""
    lines = sorted((_line_of(node, fault.path), i, fault) for i, fault in enumerate(faults))
    return "\n".join(
        f"{path}:{line}: {f'{fault.field}: ' if fault.path else ''}{fault.what}"
        for line, _, fault in lines
    )


def _line_of(node: yaml.Node, path: tuple[str | int, ...]) -> int:
    """Return the line, from 1, of the deepest part of ``path`` that the file has."""
    line: int = node.start_mark.line
    for item in path:
        if isinstance(node, yaml.MappingNode):
            pairs = [pair for pair in node.value if pair[0].value == item]
        elif isinstance(node, yaml.SequenceNode) and isinstance(item, int):
            pairs = [(each, each) for each in node.value[item : item + 1]]
        else:
            break
        if not pairs:
            break
        key, node = pairs[-1]
        line = key.start_mark.line
    return line + 1


# --- YAML -----------------------------------------------------------------------------------


# libyaml composes ten times as fast (a recipe of 2 kB: 3 ms, not 35), which a catalogue of a
# thousand feels; PyYAML's wheels have it, a PyYAML that was built without it does not.
_FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_FastLoader):  # type: ignore[misc, valid-type]
    """YAML 1.2's numbers and booleans, which editors check by, and no key twice.

    PyYAML follows YAML 1.1, where ``no`` is false and ``1e-3`` is text.
    """

    yaml_implicit_resolvers = {
        first: [each for each in rules if not each[0].endswith((":bool", ":float"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = (
                    f"'{key.value}' stands here twice (first on line {seen[key.value].line + 1})"
                )
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = key.start_mark
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


# YAML 1.2 core schema, https://yaml.org/spec/1.2.2/#103-core-schema
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.\d+|\d+\.\d*|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.inf$|^\.nan$"),
    list("-+0123456789."),
)


def _compose(path: Path) -> yaml.Node:
    """Parse a file into YAML's nodes, which know their lines."""
    try:
        node = _parse(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(_yaml_fault(path, error)) from error
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})."
        raise ConfigurationError(message) from error
    if node is None:
        message = f"{path}: is empty. Begin with 'name: {path.stem}'."
        raise ConfigurationError(message)
    return node


def _parse(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, _Loader)
    except yaml.YAMLError:
        # the slow parser says better what is wrong, and where
        yaml.compose(text, yaml.SafeLoader)
        raise


def _as_json(path: Path, node: yaml.Node) -> str:
    """Write the document as JSON, about whose few types pydantic can be strict."""
    loader = _Loader("")
    try:
        return json.dumps(loader.construct_document(node), default=str)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(_yaml_fault(path, error)) from error
    finally:
        loader.dispose()


def _yaml_fault(path: Path, error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        words = f"{error.context}: {error.problem}" if error.context else error.problem
        return f"{path}:{mark.line + 1}:{mark.column + 1}: not valid YAML: {words}."
    return f"{path}: not valid YAML in UTF-8: {' '.join(str(error).split())}."


# --- command line ---------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Check recipes, or write their schema; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.catalogue", description=__doc__)
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="folder of the recipes")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("schema", help=f"write {SCHEMA_FILE} into the folder")
    check = commands.add_parser("check", help="validate recipe files")
    check.add_argument("names", nargs="*", help="recipes to check; all of them if none is named")
    chosen = parser.parse_args(arguments)
    if chosen.command == "schema":
        (chosen.folder / SCHEMA_FILE).write_text(schema_text(), "utf-8")
        return 0
    try:
        names = chosen.names or recipe_names(chosen.folder)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return max([_check(name, chosen.folder) for name in names], default=0)


def _check(name: str, folder: Path) -> int:
    try:
        recipe = load_recipe(name, folder)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{name}: {recipe.source.kind} to {', '.join(recipe.targets)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
