"""The base of everything that travels between stages, processes and machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterator

Part = TypeVar("Part")


class Value(BaseModel):
    """An immutable value: compared by content, rejected when a field is unknown."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        # pydantic writes infinity as null by default, and then cannot read it back
        ser_json_inf_nan="strings",
        # schemas are built when a value is first made, not at the start of every worker
        defer_build=True,
    )


def parts_of(value: object, kind: type[Part]) -> Iterator[Part]:
    """Yield every part of one type that a value holds, however deep, in the order of the fields."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, Value):
        for name in type(value).model_fields:
            yield from parts_of(getattr(value, name), kind)
    elif isinstance(value, tuple):
        for each in value:
            yield from parts_of(each, kind)
    elif isinstance(value, dict):
        yield from parts_of(tuple(value.values()), kind)
