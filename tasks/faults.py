"""From pydantic's errors to lines to act on: field, expected, got, nearest valid choice."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

    Schema = dict[str, Any]
    Location = tuple[str | int, ...]

PATTERNS = {
    r"^[0-9a-f]{64}$": "a SHA-256 digest of 64 lower-case hexadecimal digits",
    r"^[0-9a-f]{32}$": "an MD5 digest of 32 lower-case hexadecimal digits",
    r"^[a-z0-9]+(-[a-z0-9]+)*$": "lower-case letters and digits with single dashes between them",
    r"^[a-z][a-z0-9_]*$": "an axis name in lower case such as 'batch'",
    r"^(https?|s3|file|pypi):\S+$": (
        "https://…, s3://bucket/key, file:///path or pypi:NAME==VERSION#MEMBER, without spaces"
    ),
    r"^\d+\.\d+(\.\d+)?$": "a version in quotes such as '1.17'",
    r"^\d\d\.\d\d$": "a container release in quotes such as '24.08'",
    r"^sklearn(\.\w+)+$": "an import path such as 'sklearn.ensemble.RandomForestClassifier'",
}
"""What a recipe's regular expressions mean, in words."""

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "fields",
    "null": "nothing",
}
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "fields, as 'key: value' lines",
    "model_type": "fields, as 'key: value' lines",
    "model_attributes_type": "fields, as 'key: value' lines",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
}
_NUMERIC = {"int_type", "int_from_float", "int_parsing", "float_type", "float_parsing"}


class Fault(NamedTuple):
    """One thing to mend."""

    path: Location
    """Keys and positions from the top of the document; empty for the whole of it."""
    what: str
    """What was expected, what was got, and the nearest valid choice."""

    @property
    def field(self) -> str:
        """The path as people write it: ``source.steps[0].params``."""
        text = "".join(f"[{item}]" if isinstance(item, int) else f".{item}" for item in self.path)
        return text.removeprefix(".")


def find_faults(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Word every error of a failed validation of ``model``, one fault for each field.

    The branches of a union complain one by one; here they are one fault ("expected a or b").
    """
    schema = model.model_json_schema()
    found: dict[Location, list[tuple[ErrorDetails, Schema]]] = {}
    for details in error.errors(include_url=False):
        path, node = _walk(schema, details["loc"])
        if details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]:
            continue  # pydantic counts the valid items only, and the others are faults already
        if details["type"] == "missing" and path and isinstance(path[-1], int):
            path = path[:-1]  # a list of fixed length is too short: the list is at fault
            _, node = _walk(schema, details["loc"][:-1])
        if details["type"] == "extra_forbidden":
            _, node = _walk(schema, details["loc"][:-1])
        if details["type"] == "value_error" and not path:
            path = tuple(_named_by(details).split(".")) if _named_by(details) else ()
        if details["type"].startswith("union_tag"):
            path = (*path, details["ctx"]["discriminator"].strip("'"))
        found.setdefault(path, []).append((details, node))
    return [
        Fault(path, _say(errors))
        for path, errors in found.items()
        if not _is_the_other_branch(path, errors, found)
    ]


def _is_the_other_branch(
    path: Location, errors: list[tuple[ErrorDetails, Schema]], all_paths: Iterable[Location]
) -> bool:
    """Whether these errors only say that a list, which has its own faults, is not a word."""
    within = any(len(each) > len(path) and each[: len(path)] == path for each in all_paths)
    return within and all(details["type"] == "literal_error" for details, _ in errors)


def _named_by(details: ErrorDetails) -> str:
    """Return the field that a validator of the whole document names: ``field.below: words``."""
    found = re.match(r"([a-z_]+(?:\.[a-z_]+)*): ", str(details["ctx"]["error"]))
    return found[1] if found and not details["loc"] else ""


def nearest(wrong: object, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?``, or nothing where no choice is near."""
    options = list(choices)
    lower = {option.lower(): option for option in reversed(options)}
    close = difflib.get_close_matches(str(wrong).lower(), lower, n=1)
    if close:
        return f" Did you mean '{lower[close[0]]}'?"
    inside = [option for word, option in lower.items() if str(wrong).lower() in word]
    return f" Did you mean '{inside[0]}'?" if inside else ""


# --- the place ------------------------------------------------------------------------------


def _walk(root: Schema, location: Location) -> tuple[Location, Schema]:
    """Follow pydantic's location through the schema, without the names of union branches.

    Returns:
        The path as it stands in the document, and what the schema says there.
    """
    path: list[str | int] = []
    node = _resolved(root, root)
    for item in location:
        mapping = node.get("discriminator", {}).get("mapping", {})
        if item in mapping:
            node = {"$ref": mapping[item]}
        elif "anyOf" in node:
            wanted = "array" if str(item).startswith(("tuple[", "list[")) else None
            node = next((each for each in node["anyOf"] if each.get("type") == wanted), {})
        elif item == "[key]":
            node = node.get("propertyNames", {})
        else:
            path.append(item)
            node = _below(node, item)
        node = _resolved(root, node)
    return tuple(path), node


def _below(node: Schema, item: str | int) -> Schema:
    if isinstance(item, int):
        fixed = node.get("prefixItems", [])
        below = fixed[item] if item < len(fixed) else node.get("items", {})
    else:
        below = node.get("properties", {}).get(item, node.get("additionalProperties", {}))
    return below if isinstance(below, dict) else {}


def _resolved(root: Schema, node: Schema) -> Schema:
    """Follow a reference, and ``x or null`` to ``x``."""
    while True:
        real = [each for each in node.get("anyOf", []) if each.get("type") != "null"]
        if "$ref" in node:
            node = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
        elif len(real) == 1:
            node = real[0]
        else:
            return node


# --- the words ------------------------------------------------------------------------------


def _say(errors: list[tuple[ErrorDetails, Schema]]) -> str:
    """Word what is wrong with one field, about which one or more union branches complain."""
    details, node = errors[0]
    got, kind = details["input"], details["type"]
    if kind == "extra_forbidden":
        return _unknown_field(details, node)
    if kind == "value_error":
        return f"{details['ctx']['error']}.".removeprefix(f"{_named_by(details)}: ")
    if kind == "union_tag_not_found":
        return f"missing (expected {_one_of(node['discriminator']['mapping'])})."
    if kind == "union_tag_invalid":
        got = got[details["ctx"]["discriminator"].strip("'")]
    if kind == "missing" and not isinstance(got, list):
        return f"missing (expected {_kind_of(node)})."
    expected = list(dict.fromkeys(_expected(each, schema) for each, schema in errors))
    choices = [choice for each, _ in errors for choice in _choices(each)]
    advice = nearest(got, choices) if isinstance(got, str) else ""
    return f"expected {' or '.join(expected)} (got {_shown(got)}).{advice or _advice(errors)}"


def _unknown_field(details: ErrorDetails, node: Schema) -> str:
    name = details["loc"][-1]
    known = list(node.get("properties", ()))
    listed = f" Fields here: {', '.join(known)}." if known else ""
    return f"unknown field (got {_shown(details['input'])}).{nearest(name, known)}{listed}"


def _expected(details: ErrorDetails, node: Schema) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if choices := _choices(details):
        return _one_of(choices)
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    if kind in {"missing", "too_long"} and "prefixItems" in node:
        return f"a list of {len(node['prefixItems'])}"
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**context)
    return details["msg"].removeprefix("Input should be ")


def _choices(details: ErrorDetails) -> list[str]:
    """Return the valid values of an enumeration, or the kinds of a union."""
    context = details.get("ctx", {})
    if details["type"] not in {"literal_error", "enum", "union_tag_invalid"}:
        return []
    return re.findall(r"'([^']*)'", str(context.get("expected") or context["expected_tags"]))


def _advice(errors: list[tuple[ErrorDetails, Schema]]) -> str:
    """Name the slip that YAML makes easy, if this is one."""
    kinds = {details["type"] for details, _ in errors}
    got = errors[0][0]["input"]
    if kinds <= _NUMERIC and isinstance(got, str) and re.fullmatch(r"[-+.\deE]+", got):
        return " Write it without quotes."
    if kinds == {"string_type"} and not isinstance(got, (list, dict, type(None))):
        return " Put it in quotes."
    if kinds == {"tuple_type"} and isinstance(got, str) and got:
        return f" Write [{got}]."
    return ""


def _kind_of(node: Schema) -> str:
    """Say in words what the schema wants at a place."""
    if "enum" in node:
        return _one_of(node["enum"])
    if "const" in node:
        return f"'{node['const']}'"
    if "discriminator" in node:
        return "fields, with a 'kind' among " + ", ".join(node["discriminator"]["mapping"])
    if node.get("type") == "object" and "required" in node:
        first_choice = node.get("oneOf", [{}])[0].get("required", [])
        return "fields, at least " + ", ".join(node["required"] + first_choice)
    if node.get("pattern") in PATTERNS:
        return PATTERNS[node["pattern"]]
    kinds = [each.get("type") for each in node.get("anyOf", [node])]
    return " or ".join(_TYPES.get(kind, "a value") for kind in kinds)


def _one_of(choices: Iterable[str]) -> str:
    words = [f"'{choice}'" for choice in choices]
    return f"one of {', '.join(words)}" if len(words) > 1 else words[0]


def _shown(value: object, limit: int = 70) -> str:
    if value is None:
        return "nothing"
    plain = isinstance(value, str) and value.isprintable()
    text = f"'{value}'" if plain else json.dumps(value, ensure_ascii=not plain)
    return text if len(text) <= limit else f"{text[:limit]} …"
