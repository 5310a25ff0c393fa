"""What a subcommand is made of: its place among the others, and its answer."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from tasks.domain.artifact import Slug

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.domain.value import Value

_SLUG: TypeAdapter[str] = TypeAdapter(Slug)


@dataclass(frozen=True)
class Answer:
    """What a command has to say."""

    document: Value | dict[str, Any] | list[Any]
    """Everything, for ``--json``."""
    text: str
    """The same for people."""
    succeeded: bool = True
    """False: what was asked for was done, and something is wrong; exit code 1."""


Run = Callable[[argparse.Namespace], Answer]


@dataclass(frozen=True)
class Commands:
    """The table that every module of this package adds its commands to."""

    parsers: argparse._SubParsersAction[argparse.ArgumentParser]
    names: list[str] = field(default_factory=list)

    def add(self, name: str, run: Run, about: str) -> argparse.ArgumentParser:
        """Add a command and return its parser, which knows ``--json`` already.

        Args:
            name: What is typed.
            run: Does it; a ``ReleaseError`` that it raises becomes one line and exit code 1.
            about: What it does, in one line.
        """
        parser = self.parsers.add_parser(name, help=about, description=about)
        parser.add_argument(
            "--json", action="store_true", help="print one JSON document and nothing else"
        )
        parser.set_defaults(run=run)
        self.names.append(name)
        return parser


def slug(text: str) -> str:
    """Return a name that may be a model's or an alias's; for ``type=`` of an argument."""
    try:
        return _SLUG.validate_python(text)
    except ValidationError:
        message = f"'{text}' is no name (lower-case letters, digits and single dashes)"
        raise argparse.ArgumentTypeError(message) from None


def positive(text: str) -> int:
    """Return a number from 1; for ``type=`` of an argument."""
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no number from 1")


def days(text: str) -> float:
    """Return a number of days from 0; for ``type=`` of an argument."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if 0 <= found < float("inf"):
        return found
    raise argparse.ArgumentTypeError(f"'{text}' is no number of days")


def table(rows: Sequence[dict[str, str]]) -> str:
    """Write rows of words with aligned columns; empty columns are left out."""
    names = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    lines = [names, *([row[name] for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    written = (
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in written)
