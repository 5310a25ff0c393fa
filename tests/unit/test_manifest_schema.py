"""The published schema is the manifest's, and a manifest is valid by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tasks.domain.release import Manifest, Signing
from tasks.manifest_schema import main, schema_text
from tests.support.publisher import manifest_maker

FILE = Path(__file__).parents[2] / "docs" / "manifest.schema.json"
SCHEMA = json.loads(FILE.read_text())


def written(**changes: Any) -> dict[str, Any]:
    manifest = manifest_maker("linear", Signing(method="key", public_key="1" * 64))(1, ())
    changed: dict[str, Any] = json.loads(manifest.model_copy(update=changes).model_dump_json())
    return changed


def test_the_published_schema_is_up_to_date(tmp_path: Path) -> None:
    main(["--file", str(tmp_path / "schema.json")])

    assert (tmp_path / "schema.json").read_text() == FILE.read_text(), (
        "run python -m tasks.manifest_schema"
    )
    assert FILE.read_text() == schema_text()


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    fields = Manifest.model_fields
    assert set(SCHEMA["properties"]) == set(fields)
    # older manifests lack what has a default, and stay valid
    assert set(SCHEMA["required"]) == {name for name, each in fields.items() if each.is_required()}


@pytest.mark.parametrize("metric", [0.5, float("inf"), float("nan")])
def test_a_manifest_is_valid_even_where_json_has_no_number(metric: float) -> None:
    manifest = written(metrics={"loss": metric})

    jsonschema.validate(manifest, SCHEMA)

    assert manifest["metrics"]["loss"] in {0.5, "Infinity", "NaN"}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"schema_version": 2}, id="another-version"),
        pytest.param({"version": 0}, id="no-version"),
        pytest.param({"unknown": 1}, id="unknown-field"),
        pytest.param({"files": [{"path": "a", "sha256": "x", "size_bytes": 1}]}, id="digest"),
    ],
)
def test_what_is_no_manifest_is_not_valid(changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written() | changes, SCHEMA)


def test_a_manifest_of_before_signing_still_reads() -> None:
    old = written()
    for name in ("signing", "flow_run_url"):
        del old[name]

    manifest = Manifest.model_validate_json(json.dumps(old))

    assert manifest.signing == Signing(method="off")
