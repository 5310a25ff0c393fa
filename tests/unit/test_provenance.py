"""Provenance has the shape that in-toto and SLSA give it, and says what went in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tasks.catalogue import load_catalogue
from tasks.domain.provenance import Statement, downloads_of, statement_of
from tasks.domain.release import ReleaseFile

ROOT = Path(__file__).parents[2]
RECIPES = {recipe.name: recipe for recipe in load_catalogue(ROOT / "models")}
FILES = (
    ReleaseFile(path="onnx/model.onnx", sha256="1" * 64, size_bytes=3),
    ReleaseFile(path="golden/inputs/random.npz", sha256="2" * 64, size_bytes=3),
)
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))


def statement(name: str = "mobilenet-v2") -> Statement:
    return statement_of(
        RECIPES[name],
        FILES,
        parameters={"model": name, "version": None},
        tools={"onnx-conveyor": "0.1.0", "prefect": "3.8.8", "torch": "2.14.1+cpu"},
        host={"cores": "2"},
        flow_run="0b5e",
        started=STARTED,
        finished=datetime(2026, 1, 2, 4, tzinfo=UTC),
    )


@pytest.mark.parametrize("name", RECIPES)
def test_in_totos_own_types_read_it(name: str) -> None:
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement as Theirs

    text = json.loads(statement(name).text())

    parsed = json_format.ParseDict(text, statement_pb2.Statement())
    Theirs.copy_from_pb(parsed).validate()
    predicate = json_format.ParseDict(text["predicate"], provenance_pb2.Provenance())
    assert parsed.predicate_type == "https://slsa.dev/provenance/v1"
    assert [each.name for each in parsed.subject] == [file.path for file in FILES]
    assert predicate.run_details.metadata.invocation_id == "0b5e"
    assert predicate.run_details.metadata.started_on.ToJsonString() == "2026-01-02T01:04:05Z"
    assert json_format.MessageToDict(predicate, preserving_proto_field_name=False)


def test_it_says_what_was_asked_for_and_what_went_in() -> None:
    predicate: dict[str, Any] = json.loads(statement().text())["predicate"]

    definition = predicate["buildDefinition"]
    uris = {each["uri"]: each for each in definition["resolvedDependencies"]}
    assert definition["externalParameters"]["recipe"] == "mobilenet-v2"
    assert definition["externalParameters"]["parameters"]["model"] == "mobilenet-v2"
    assert "pkg:pypi/torch@2.14.1%2Bcpu" in uris
    assert predicate["runDetails"]["builder"]["version"]["onnx-conveyor"] == "0.1.0"
    for download in downloads_of(RECIPES["mobilenet-v2"]):
        assert uris[download.uri]["digest"] == {"sha256": download.sha256}


def test_every_download_of_the_catalogue_is_found_wherever_it_stands() -> None:
    for recipe in RECIPES.values():
        written = json.dumps(recipe.model_dump(mode="json"))

        found = {each.uri for each in downloads_of(recipe)}

        assert found == {uri for uri in found if json.dumps(uri) in written}
        assert written.count('"uri"') >= len(found)
        assert (written.count('"uri"') > 0) == bool(found)


def test_a_folders_digest_is_not_called_that_of_a_file() -> None:
    folders = [
        each
        for each in statement("basic-pitch").predicate.build_definition.resolved_dependencies
        if each.uri and each.uri.endswith("/")
    ]

    assert folders
    assert all(set(each.digest or {}) == {"dirHash1"} for each in folders)


def test_it_reads_back_as_it_was_written() -> None:
    written = statement()

    read = Statement.model_validate_json(written.text())

    assert read.digests() == {file.path: file.sha256 for file in FILES}
    assert read.text() == written.text()
