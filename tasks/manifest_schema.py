"""The JSON Schema of a manifest: ``python -m tasks.manifest_schema`` writes it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic.json_schema import GenerateJsonSchema

from tasks.domain.release import Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema

SCHEMA_FILE = Path("docs") / "manifest.schema.json"


class _AsWritten(GenerateJsonSchema):
    """Numbers as values write them: what JSON has no number for is a string."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        number = super().float_schema(schema)
        return {"anyOf": [number, {"enum": ["Infinity", "-Infinity", "NaN"]}]}


def schema_text() -> str:
    """Return the JSON Schema that every published manifest is valid by."""
    schema = Manifest.model_json_schema(mode="serialization", schema_generator=_AsWritten)
    schema = {"$schema": _AsWritten.schema_dialect} | schema
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the schema; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.manifest_schema", description=__doc__)
    parser.add_argument("--file", type=Path, default=SCHEMA_FILE, help="where to")
    parser.parse_args(arguments).file.write_text(schema_text(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
