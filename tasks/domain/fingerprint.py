"""What a release depends on, written down part by part, so that a change can be told in words."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from tasks.domain.artifact import Sha256
from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOOL, CODE = "tool ", "code "
"""How the names of those parts begin; what comes after is a package, or a folder of ours."""

_LONGEST = 200
"""A value of more characters stands in its part as a digest: a manifest is read by people."""
_LONGEST_SAID = 60
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w-]*")
_ORDER = ("recipe", "parity", "converters", "tool", "code")


class Fingerprint(Value):
    """Everything that decides what a release will be, known before any of it is made."""

    digest: Sha256
    """SHA-256 of the parts as JSON with sorted names, without spaces, in ASCII."""
    parts: dict[str, str]
    """By name, sorted, such as ``recipe.opset: 17`` or ``tool onnx: 1.23.2``."""

    @classmethod
    def of(cls, parts: Mapping[str, str]) -> Self:
        """Return the fingerprint of these parts, whatever order they come in."""
        return cls(digest=_digest(parts), parts=dict(sorted(parts.items())))

    def changes_since(self, older: Fingerprint) -> tuple[str, ...]:
        """Say in words what differs, the recipe first; empty if nothing does."""
        names = self.parts.keys() | older.parts.keys()
        return tuple(
            _change(name, older.parts.get(name), self.parts.get(name))
            for name in sorted(names, key=_place)
            if older.parts.get(name) != self.parts.get(name)
        )

    @model_validator(mode="after")
    def _digest_is_of_the_parts(self) -> Self:
        if self.digest != _digest(self.parts):
            message = "digest: is not the one of the parts"
            raise ValueError(message)
        return self


def leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - it is JSON
    """Yield every leaf of a JSON value as a part: its path, and itself in JSON.

    A list without an object in it is a leaf. Two values that differ never yield the same
    leaves: keys that could be taken for a path are quoted, and empty objects are leaves too.

    Args:
        name: The path of ``value``.
        value: What ``json.loads`` may return.
    """
    if isinstance(value, dict) and value:
        for key, each in value.items():
            step = key if _PLAIN_NAME.fullmatch(key) else json.dumps(key)
            yield from leaves(f"{name}.{step}", each)
    elif isinstance(value, list) and _holds_objects(value):
        for number, each in enumerate(value):
            yield from leaves(f"{name}[{number}]", each)
    else:
        yield name, _written(value)


def _holds_objects(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_holds_objects, value))
    return isinstance(value, dict)


def _written(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if len(text) <= _LONGEST:
        return text
    what = f"{len(value)} values" if isinstance(value, list) else f"{len(text)} characters"
    return f"{what}, sha256 {hashlib.sha256(json.dumps(value).encode()).hexdigest()}"


def _digest(parts: Mapping[str, str]) -> str:
    text = json.dumps(dict(parts), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _place(name: str) -> tuple[int, str]:
    first = re.split(r"[ .\[]", name, maxsplit=1)[0]
    return (_ORDER.index(first) if first in _ORDER else len(_ORDER), name)


def _change(name: str, old: str | None, new: str | None) -> str:
    digests = name.startswith(CODE) or all(text and "sha256 " in text for text in (old, new))
    what = f"code of {name.removeprefix(CODE)}" if name.startswith(CODE) else name
    what = what.removeprefix(TOOL)
    if old is None:
        return f"{what} is new" if digests else f"{what} is new: {_said(new)}"
    if new is None:
        return f"{what} is gone" if digests else f"{what} is gone: it was {_said(old)}"
    return f"{what} changed" if digests else f"{what} {_said(old)} -> {_said(new)}"


def _said(text: str | None) -> str:
    """Shorten a value for people: digests to 12 digits, the rest to one short line."""
    short = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", text or "")
    return short if len(short) <= _LONGEST_SAID else f"{short[:_LONGEST_SAID]}…"
