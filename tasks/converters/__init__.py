"""The converters: each is one module here, found by itself; adding one is adding a file.

A module has ``CONVERTER``, which says what it takes and makes, and ``convert``, which runs
in a child process of its family. Importing a module imports no framework; ``convert`` does.

What ``convert`` writes into ``request.folder``: for ONNX, ``model.onnx`` and, above 2 GB of
weights, ``model.onnx.data`` beside it; for a SavedModel, its own files with the signature
``serving_default``. Inputs and outputs bear the recipe's names, in the recipe's order, and
the first axis of each is dynamic. ``tests/contract/`` holds each to this.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ConfigurationError
from tasks.domain.passes import PassRun
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.isolation import Family
from tasks.settings import converter_packages

if TYPE_CHECKING:
    from collections.abc import Callable


class ConvertRequest(Value):
    """What a converter gets."""

    recipe: Recipe
    source: Path
    """Folder of the model to convert: the source model's, or an ONNX model's."""
    folder: Path
    """Empty folder for the converted model."""
    passes: tuple[str, ...] | None = None
    """Which of the converter's own optimising passes to run; None: all, (): the raw export."""


class ConvertReply(Value):
    """What a converter tells of its work."""

    notes: tuple[str, ...] = ()
    """What a reader of the manifest should know, such as an opset that was not honoured."""
    passes: tuple[PassRun, ...] = ()
    """Each pass that was asked for, in the order in which they run."""


@dataclass(frozen=True)
class Converter:
    """What a converter can do."""

    name: str
    takes: ModelFormat
    makes: ModelFormat
    family: Family
    rank: int
    """Where several fit, the lowest is tried first."""
    summary: str
    tools: tuple[str, ...] = ()
    """Packages whose version decides what it writes; those of its formats need no mention."""
    code: tuple[str, ...] = ()
    """Packages of our own, outside the converters' own one, that it is made of."""
    tools_folder: Path | None = None
    """Where ``tools`` are installed, if not where everything is."""
    opsets: range = range(1, 1_000)
    """The opsets that it can write; it is not tried for others. Of no meaning for SavedModels."""
    passes: tuple[str, ...] = ()
    """Its own optimising steps that can be left out, in the order in which they run."""

    def chosen(self, request: ConvertRequest) -> tuple[str, ...]:
        """Return the passes that ``request`` asks for, in order.

        Raises:
            ConfigurationError: It names one that the converter does not have.
        """
        if request.passes is None:
            return self.passes
        if unknown := [name for name in request.passes if name not in self.passes]:
            message = (
                f"{request.recipe.name}: {self.name}: no pass '{unknown[0]}' (expected among: "
                f"{', '.join(self.passes) or 'none'})."
            )
            raise ConfigurationError(message)
        return tuple(name for name in self.passes if name in request.passes)

    def refusal(self, recipe: Recipe) -> str | None:
        """Say why it need not be tried for ``recipe``; None if it is worth a try."""
        if self.makes is not ModelFormat.ONNX or recipe.opset in self.opsets:
            return None
        return (
            f"{recipe.name}: {self.name} writes no opset {recipe.opset} "
            f"(expected {self.opsets[0]} to {self.opsets[-1]})."
        )


@cache
def _table() -> dict[str, tuple[Converter, Callable[[ConvertRequest], ConvertReply]]]:
    found = {}
    for package_name in converter_packages():
        package = importlib.import_module(package_name)
        for each in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package_name}.{each.name}")
            if converter := getattr(module, "CONVERTER", None):
                found[converter.name] = (converter, module.convert)
    return found


def convert_function(name: str) -> Callable[[ConvertRequest], ConvertReply]:
    """Return the function of the converter called ``name``, to be run in a child process."""
    return _table()[name][1]


def all_converters() -> tuple[Converter, ...]:
    """Return every converter, in the order of their ranks."""
    return tuple(sorted((each for each, _ in _table().values()), key=lambda each: each.rank))


def converters_for(recipe: Recipe, takes: ModelFormat, makes: ModelFormat) -> tuple[Converter, ...]:
    """Return the converters to try, in order.

    Raises:
        ConfigurationError: None fits, or the recipe names one that does not.
    """
    fitting = [each for each in all_converters() if (each.takes, each.makes) == (takes, makes)]
    names = recipe.converters.get(makes)
    if names is None:
        names = tuple(each.name for each in fitting)
    by_name = {each.name: each for each in fitting}
    if unknown := [name for name in names if name not in by_name]:
        message = (
            f"{recipe.name}: converters.{makes}: no converter '{unknown[0]}' makes {makes} from "
            f"{takes} (expected one of: {', '.join(by_name) or 'none'})."
        )
        raise ConfigurationError(message)
    if not names:
        message = f"{recipe.name}: targets: no converter makes {makes} from {takes}."
        raise ConfigurationError(message)
    return tuple(by_name[name] for name in names)
