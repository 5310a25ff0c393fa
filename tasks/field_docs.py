"""Describe the fields of values in their JSON Schema by the docstrings below them.

pydantic does this itself (``use_attribute_docstrings``), but at every import, by reading the
source of every class: 90 ms of each worker's start, for a schema that only editors read.
"""

from __future__ import annotations

import ast
import inspect
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterator


def describe_fields(schema: dict[str, Any], model: type[Value]) -> None:
    """Add a description to each property of ``schema`` whose field has a docstring.

    Args:
        schema: JSON Schema of ``model`` as pydantic makes it; changed in place.
        model: Its nested values are known by their names below ``$defs``.
    """
    values = {each.__name__: each for each in _values_of(model)}
    for name, part in {**schema.get("$defs", {}), model.__name__: schema}.items():
        texts = _docstrings(values[name]) if name in values else {}
        for field, described in part.get("properties", {}).items():
            if field in texts:
                described.setdefault("description", texts[field])


def _values_of(kind: type[Value]) -> set[type[Value]]:
    """Return a value and all that are nested in it, however deep."""
    found: set[type[Value]] = set()
    waiting: list[Any] = [kind]
    while waiting:
        each = waiting.pop()
        waiting += get_args(each)
        if isinstance(each, type) and issubclass(each, Value) and each not in found:
            found.add(each)
            waiting += [field.annotation for field in each.model_fields.values()]
    return found


def _docstrings(kind: type[Value]) -> dict[str, str]:
    """Return the docstring of each field that has one, its own or inherited."""
    texts: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if issubclass(each, Value) and each is not Value:
            tree = ast.parse(inspect.getsource(sys.modules[each.__module__]))
            bodies = [n.body for n in tree.body if isinstance(n, ast.ClassDef)]
            names = [n.name for n in tree.body if isinstance(n, ast.ClassDef)]
            texts |= dict(_documented(bodies[names.index(each.__name__)]))
    return texts


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match text:
                case ast.Expr(value=ast.Constant(value=str(words))):
                    yield field.target.id, inspect.cleandoc(words)
                case _:
                    pass
