"""The versions we take for their elders are their elders, by ONNX's own schemas."""

from __future__ import annotations

from typing import Any

import onnx.defs
import pytest

from tasks.onnxtf.widened import GUARDED, WIDENED

_SCHEMAS: dict[str, dict[int, Any]] = {}
for _each in onnx.defs.get_all_schemas_with_history():
    if not _each.domain:
        _SCHEMAS.setdefault(_each.name, {})[_each.since_version] = _each


def _attributes(schema: Any) -> dict[str, bytes]:
    return {
        name: each.default_value.SerializeToString() for name, each in schema.attributes.items()
    }


def _sides(schema: Any) -> tuple[list[str], list[str]]:
    inputs, outputs = (
        [str(each.option) for each in side] for side in (schema.inputs, schema.outputs)
    )
    return inputs, outputs


@pytest.mark.parametrize(
    ("operator", "version"), [(name, v) for name, versions in WIDENED.items() for v in versions]
)
def test_a_widened_version_has_the_attributes_and_inputs_of_its_elder(
    operator: str, version: int
) -> None:
    history = _SCHEMAS[operator]
    elder = history[max(each for each in history if each < version)]
    guarded = GUARDED.get(operator, {})

    young, old = _attributes(history[version]), _attributes(elder)

    assert _sides(history[version]) == _sides(elder)
    changed = {name for name in young | old if young.get(name) != old.get(name)}
    assert changed <= set(guarded)


def test_no_widened_version_is_skipped_between_two_that_are_known() -> None:
    for operator, versions in WIDENED.items():
        later = [each for each in _SCHEMAS[operator] if min(versions) <= each <= max(versions)]

        assert sorted(later) == list(versions), operator
