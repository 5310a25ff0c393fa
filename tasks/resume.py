"""A run that was interrupted goes on from its finished stages.

A stage that took long leaves its result in the bucket: its files in the run's own folder,
``work/<run>/``, and beside them ``stages/<digest>.json``, the value that names them. A run that
is tried again, on this machine or another one, looks there before it begins a stage. Shorter
stages are done again: to upload their files would cost every run what few ever need.

The digest is over the stage, its arguments, with files by their content, and all that the
recipe's release depends on (``tasks.fingerprint``): where anything differs, the stage is done.

The run's end removes the folder. An interruption does not; where the run is never tried again,
``collect-garbage`` does.
"""

from __future__ import annotations

import functools
import hashlib
import time
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast, get_type_hints

from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import ValidationError

from tasks.domain.errors import ArtifactNotFoundError, StorageError
from tasks.domain.release import SourceModel
from tasks.domain.value import Value
from tasks.fingerprint import fingerprint_of
from tasks.runtime import Workshop, workshop
from tasks.settings import local_settings
from tasks.trees import content_of, trees_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.domain.recipe import Recipe

_SENT_PER_SECOND = 50_000_000
"""Bytes; less than a store on the same machine takes, as much as half a gigabit of network."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result", bound=Value)


def resumable(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a stage of a run that was interrupted give back what it had made.

    Args:
        function: A stage; its first argument is the recipe, or the model that has it.
    """

    @functools.wraps(function)
    def stage(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        shop = workshop()
        if shop.lent or named:
            return function(*arguments, **named)
        if (flow_run.run_count or 1) > 1 and (found := _found(shop, function, arguments)):
            return found
        began = time.monotonic()
        result = function(*arguments, **named)
        if _is_worth_keeping(result, time.monotonic() - began):
            _keep(shop, function, arguments, result)
        return result

    return stage


def _found(
    shop: Workshop, function: Callable[..., Result], arguments: tuple[object, ...]
) -> Result | None:
    """Return the result that the stage left before its run was interrupted, if it did."""
    kind: type[Result] = get_type_hints(function)["return"]
    try:
        text = shop.store.read(_key(shop, function, arguments)).content
        result = kind.model_validate_json(text)
    except (ArtifactNotFoundError, ValidationError):
        return None
    shop.adopt(*trees_in(result))
    name = function.__name__
    get_run_logger().info("%s: was done before the run was interrupted; its result is taken", name)
    return result


def _is_worth_keeping(result: Value, seconds: float) -> bool:
    """Whether to do the stage again would take longer than to send what it made."""
    least = local_settings().keep_after_seconds
    if not least:
        return True
    sent = sum(tree.size_bytes for tree in trees_in(result))
    return seconds >= least + sent / _SENT_PER_SECOND


def _keep(
    shop: Workshop,
    function: Callable[..., Result],
    arguments: tuple[object, ...],
    result: Result,
) -> None:
    """Leave a result in the bucket; the document last, so that who finds it finds its files."""
    try:
        for tree in trees_in(result):
            shop.share(tree)
        content = result.model_dump_json().encode()
        shop.store.create(_key(shop, function, arguments), content)
    except StorageError as error:
        # the stage is done all the same; only an interruption would miss this
        get_run_logger().warning("%s: its result is not kept: %s", function.__name__, error)


def _key(shop: Workshop, function: Callable[..., Value], arguments: tuple[object, ...]) -> str:
    parts = [function.__module__, function.__name__, fingerprint_of(_recipe(arguments[0])).digest]
    parts += map(_content, arguments)
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"{shop.prefix}stages/{function.__name__}-{digest[:32]}.json"


def _recipe(first: object) -> Recipe:
    return first.recipe if isinstance(first, SourceModel) else cast("Recipe", first)


def _content(argument: object) -> str:
    """Return an argument in words that are the same in every try of a run."""
    if isinstance(argument, Value):
        return content_of(argument)
    return str(getattr(argument, "name", argument))  # a converter, whose paths are a machine's
