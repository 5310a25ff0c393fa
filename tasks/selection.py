"""Which models of the catalogue are meant: ``tag:vision stale, name:resnet*``.

::

    expression   either (("," | "or") either)*        one of them is enough
    either       each (["and"] each)*                 all of them; a space says "and" too
    each         "not" each | "(" expression ")" | word
    word         "all" | "stale" | "tag:PATTERN" | "name:PATTERN" | PATTERN (of a name)

A pattern may have ``*`` and ``?``, and must fit at least one recipe. ``stale`` is a model that
is not released as it would be now.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tasks.domain.errors import ConfigurationError
from tasks.faults import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tasks.domain.recipe import Recipe

_TOKEN = re.compile(r"[(),]|[^\s(),]+")
_WORD = re.compile(r"(?:(\w+):)?([a-z0-9*?-]+)")
_ENDS = {")", ",", "or"}
_MOST_NAMES = 20
_DEEPEST = 20
"""Brackets and ``not`` inside each other; each takes some of Python's stack."""


@dataclass(frozen=True)
class Selection:
    """A parsed expression."""

    text: str
    patterns: tuple[tuple[str, str], ...]
    """Kind (``tag`` or ``name``) and pattern of each word that has one."""
    fits: Callable[[Recipe, bool], bool]
    """Whether a recipe is meant, given whether it is stale."""

    def might_fit(self, recipe: Recipe) -> bool:
        """Whether a recipe is meant in at least one case, stale or not."""
        return self.fits(recipe, True) or self.fits(recipe, False)  # noqa: FBT003 - either

    def check(self, recipes: Sequence[Recipe]) -> None:
        """Make sure that each pattern fits something.

        Raises:
            ConfigurationError: One fits no recipe, as a word with a slip in it does.
        """
        known = {
            "name": sorted(recipe.name for recipe in recipes),
            "tag": sorted({tag for recipe in recipes for tag in recipe.tags}),
        }
        for kind, pattern in self.patterns:
            if not any(fnmatchcase(each, pattern) for each in known[kind]):
                listed = ", ".join(known[kind][:_MOST_NAMES]) or "none"
                more = " …" if len(known[kind]) > _MOST_NAMES else ""
                message = (
                    f"select: no recipe's {kind} fits '{pattern}'.{nearest(pattern, known[kind])} "
                    f"There are: {listed}{more}."
                )
                raise ConfigurationError(message)


def parse_selection(text: str) -> Selection:
    """Understand an expression.

    Raises:
        ConfigurationError: It is not one; the message says where it stops making sense.
    """
    parser = _Parser(text)
    fits = parser.expression()
    if parser.next is not None:
        raise parser.error("expected the end, or 'and', 'or', ','")
    return Selection(text=text, patterns=tuple(parser.patterns), fits=fits)


class _Parser:
    """A recursive descent, one method for each line of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: Iterator[re.Match[str]] = _TOKEN.finditer(text)
        self.patterns: list[tuple[str, str]] = []
        self.next: str | None = None
        self._at = len(text)
        self._depth = 0
        self._step()

    def _step(self) -> str | None:
        """Go on to the next token, and return the one that was."""
        seen = self.next
        found = next(self._tokens, None)
        self.next = found.group() if found else None
        self._at = found.start() if found else len(self._text)
        return seen

    def error(self, expected: str) -> ConfigurationError:
        got = f"'{self.next}'" if self.next is not None else "the end"
        return ConfigurationError(
            f"select: '{self._text}' makes no sense at character {self._at + 1} ({expected}, got "
            f"{got}). For example: tag:vision stale, name:resnet*"
        )

    def expression(self) -> Callable[[Recipe, bool], bool]:
        parts = [self._either()]
        while self.next in {",", "or"}:
            self._step()
            parts.append(self._either())
        return lambda recipe, stale: any(part(recipe, stale) for part in parts)

    def _either(self) -> Callable[[Recipe, bool], bool]:
        parts = [self._each()]
        while self.next is not None and self.next not in _ENDS:
            if self.next == "and":
                self._step()
            parts.append(self._each())
        return lambda recipe, stale: all(part(recipe, stale) for part in parts)

    def _each(self) -> Callable[[Recipe, bool], bool]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self.error(f"expected at most {_DEEPEST} levels of brackets and 'not'")
        try:
            return self._unnested()
        finally:
            self._depth -= 1

    def _unnested(self) -> Callable[[Recipe, bool], bool]:
        if self.next == "not":
            self._step()
            part = self._each()
            return lambda recipe, stale: not part(recipe, stale)
        if self.next == "(":
            self._step()
            part = self.expression()
            if self.next != ")":
                raise self.error("expected ')'")
            self._step()
            return part
        return self._word()

    def _word(self) -> Callable[[Recipe, bool], bool]:
        if self.next in {None, "and", *_ENDS}:
            raise self.error("expected a word such as 'stale', 'tag:vision' or 'name:resnet*'")
        match = _WORD.fullmatch(self.next or "")
        kind, pattern = match.groups() if match else ("?", "")
        if kind not in {None, "tag", "name"}:
            raise self.error("expected 'all', 'stale', 'tag:PATTERN' or 'name:PATTERN'")
        self._step()
        if kind is None and pattern in {"all", "stale"}:
            return lambda _, stale: stale or pattern == "all"
        self.patterns.append((kind or "name", pattern))
        if kind == "tag":
            return lambda recipe, _: any(fnmatchcase(tag, pattern) for tag in recipe.tags)
        return lambda recipe, _: fnmatchcase(recipe.name, pattern)
