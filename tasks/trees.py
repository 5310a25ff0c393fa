"""The files that a value names, and the value without where they happen to stand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks.domain.artifact import StoredTree
from tasks.domain.value import Value, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEASURED = {"cost", "ms_per_row"}
"""Fields that differ from try to try, though the work is the same."""


def trees_in(value: object) -> Iterator[StoredTree]:
    """Yield every ``StoredTree`` that a value holds, however deep."""
    return parts_of(value, StoredTree)


def content_of(value: Value) -> str:
    """Return a value in words that are the same whenever the same work has made it.

    Files go by what is in them, since a stage that is done again gives them a new root; what was
    measured on the way is left out.
    """
    text = json.dumps(_unmeasured(value.model_dump(mode="json")), sort_keys=True)
    for tree in trees_in(value):
        text = text.replace(tree.root, tree.sha256)
    return text


def _unmeasured(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {name: _unmeasured(each) for name, each in value.items() if name not in _MEASURED}
    if isinstance(value, list):
        return [_unmeasured(each) for each in value]
    return value
