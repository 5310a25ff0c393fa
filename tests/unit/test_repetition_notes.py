"""What a release says of the one before it: repeated, or not, and in which part."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tasks.domain.artifact import Canonical, Cost, OnnxFacts
from tasks.domain.fingerprint import Fingerprint
from tasks.domain.release import Manifest, PublishedFormat, Release
from tasks.domain.reproducibility import with_note_on_repetition
from tests.unit.test_report import release as plain_release

TOOLS = {"torch": "2.14.1"}


def canonical(**parts: str) -> Canonical:
    fields = {"sha256": "0", "signature": "1", "opsets": "2", "graph": "3", "weights": "4"} | parts
    return Canonical(**{name: digit * 64 for name, digit in fields.items()})


def released(found: Canonical | None = None) -> Release:
    made = plain_release()
    first, second = made.candidates
    facts = first.verified.onnx
    assert facts is not None
    facts = facts.model_copy(update={"canonical": found or canonical()})
    verified = first.verified.model_copy(update={"onnx": facts})
    other = second.model_copy(
        update={"verified": second.verified.model_copy(update={"onnx": None})}
    )
    candidates = (first.model_copy(update={"verified": verified}), other)
    return made.model_copy(update={"candidates": candidates})


def manifest(made: Release, **changes: Any) -> Manifest:
    first = made.candidates[0]
    published = PublishedFormat(
        format=first.verified.artifact.format, folder="onnx", sha256="a" * 64, size_bytes=1,
        converter=first.converter, attempts=(), checks=(), onnx=first.verified.onnx,
        parity=first.parity, notes=(),
    )  # fmt: skip
    fields: dict[str, Any] = {
        "model": "net", "version": 3, "created": datetime.now(UTC), "seeded": False,
        "recipe": made.source.recipe, "source_format": made.source.artifact.format,
        "source_sha256": made.source.artifact.tree.sha256, "metrics": {}, "source_notes": (),
        "reference_runtime": "torch", "probes": (), "formats": (published,), "files": (),
        "costs": {"export": Cost()}, "tools": TOOLS, "host": {}, "flow_run": None,
        "fingerprint": Fingerprint.of({"recipe.opset": "17"}), "changed_since": None, "changes": (),
    }  # fmt: skip
    return Manifest(**fields | changes)


def notes(after: Release, before: Manifest | None) -> tuple[str, ...]:
    return with_note_on_repetition(after, before, TOOLS).candidates[0].notes


def test_the_same_digest_is_a_repetition() -> None:
    assert notes(released(), manifest(released())) == (
        "repeats version 3: the same canonical digest",
    )


def test_other_weights_of_the_same_recipe_and_tools_are_named() -> None:
    after = released(canonical(sha256="9", weights="8"))

    (note,) = notes(after, manifest(released()))

    assert note == (
        "does not repeat version 3, though recipe and tools are the same: weights differ; "
        "alike: opsets, signature, graph"
    )


def test_a_source_that_differs_already_is_named_too() -> None:
    after = released(canonical(sha256="9", weights="8"))

    (note,) = notes(after, manifest(released(), source_sha256="f" * 64))

    assert note.endswith("alike: opsets, signature, graph; the source model's files differ too")


def test_nothing_is_said_of_other_tools() -> None:
    assert notes(released(), manifest(released(), tools={"torch": "2.15.0"})) == ()


def test_nothing_is_said_of_another_recipe() -> None:
    before = released()
    recipe = before.source.recipe.model_copy(update={"opset": 18})

    assert notes(released(), manifest(before, recipe=recipe)) == ()


def test_nothing_is_said_of_the_first_release() -> None:
    assert notes(released(), None) == ()


def test_nothing_is_said_of_a_manifest_from_before_there_were_canonical_digests() -> None:
    before = manifest(released())
    (published,) = before.formats
    assert published.onnx is not None
    old = published.onnx.model_dump(exclude={"canonical"})
    published = published.model_copy(update={"onnx": OnnxFacts.model_validate(old)})

    assert notes(released(), before.model_copy(update={"formats": (published,)})) == ()


def test_the_note_stands_with_the_onnx_file_alone() -> None:
    made = with_note_on_repetition(released(), manifest(released()), TOOLS)

    assert made.candidates[1].notes == ()
