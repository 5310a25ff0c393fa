"""No converter, but a hand on the stages: a model called ``held-<stage>-…`` stays in that stage.

It stays while its run has the variable ``TEST_HOLD``, a folder in which it leaves a mark; a run
without it, such as the next try on another worker, goes on. What holds is the stage's own child
process, in mid-work; for ``publish``, which has none, the run itself, with some files uploaded.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.domain.value import Value
from tasks.isolation import Children
from tasks.progress import StageProgress

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.isolation import Answered, Call


class AnyRequest(Value, extra="allow"):
    """The request of whichever stage is held."""


def stay(request: AnyRequest) -> AnyRequest:
    """Stay for ever, in a child process."""
    fields: dict[str, Any] = request.model_extra or {}
    _stay(fields["recipe"]["name"])
    return request


def _stay(model: str) -> None:
    (Path(os.environ["TEST_HOLD"]) / model).touch()
    while True:
        time.sleep(1)


def _hold_children() -> None:
    call_it = Children.call

    def call(
        self: Children, function: Callable[[Any], Any], request: Value, call: Call
    ) -> Answered[Any]:
        held = call.model.startswith(f"held-{call.stage.split()[0]}-")
        work: Callable[[Any], Any] = stay if held else function
        return call_it(self, work, request, call)

    Children.call = call  # type: ignore[method-assign]


def _hold_publishing() -> None:
    tell = StageProgress.__call__

    def progress(self: StageProgress, fraction: float, text: str = "") -> None:
        words = self._description
        if words.startswith("publish held-publish-"):
            _stay(words.removeprefix("publish "))
        tell(self, fraction, text)

    StageProgress.__call__ = progress  # type: ignore[method-assign]


if "TEST_HOLD" in os.environ:
    _hold_children()
    _hold_publishing()
