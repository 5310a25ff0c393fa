"""The base of everything that travels between stages, processes and machines."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


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
