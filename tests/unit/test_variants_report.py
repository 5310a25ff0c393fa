"""The pages tell what became of each variant, and escape whatever it was refused for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.artifact import ModelFormat, StoredTree, VerifiedArtifact
from tasks.domain.variant_rules import race_of
from tasks.domain.variants import Agreement, VariantOutcome
from tasks.report import parity_html
from tasks.report.release_pages import Extras, release_pages
from tests.unit.test_report import HOSTILE, recipe, release, report

if TYPE_CHECKING:
    from tasks.domain.release import Release


def with_variants() -> Release:
    plain = release()
    onnx = plain.candidates[0].verified
    file = onnx.artifact.tree.files[0].model_copy(update={"size_bytes": 3_475_000})
    small = onnx.artifact.model_copy(
        update={"variant": "int8", "tree": StoredTree(root="int8", files=(file,))}
    )
    good = VariantOutcome(
        kind="int8",
        released=True,
        reason="smaller and faster",
        verified=VerifiedArtifact(artifact=small, checks=(), onnx=onnx.onnx),
        parity=report(ModelFormat.ONNX),
        agreement=Agreement(rows=32, top1_equal=31, on="pictures"),
        race=race_of([(10, 5)] * 9, "cpu"),
        parent_bytes=13_900_000,
        notes=("calibrated on 64 rows",),
    )
    bad = VariantOutcome(kind="float16", reason=HOSTILE, parent_bytes=13_900_000)
    return plain.model_copy(update={"variants": (good, bad)})


def test_the_report_shows_each_variant_below_its_parent() -> None:
    made = with_variants()

    page = parity_html(recipe(), [each.parity for each in made.candidates], release=made)

    assert "✔ ONNX int8" in page
    assert "3.5 MB (25%)" in page
    assert "0.50 x its time a row" in page
    assert "top-1 as the source on 31 of 32 rows (pictures)" in page
    assert "calibrated on 64 rows" in page
    assert "✘ ONNX float16" in page
    assert "refused: &lt;script&gt;" in page
    assert "<script>" not in page


def test_a_report_without_variants_says_nothing_of_them() -> None:
    made = release()

    page = parity_html(recipe(), [each.parity for each in made.candidates], release=made)

    assert "<h2>Variants</h2>" not in page


def test_a_versions_page_lists_what_is_released_and_not_what_was_refused() -> None:
    pages = release_pages(with_variants(), 1, [], Extras("print()"))

    assert "| ONNX int8 | `onnx-int8/` | 3.5 MB | int8 of ONNX |" in pages["README.md"]
    assert "onnx-float16" not in pages["README.md"]
    assert "onnx-int8/" in pages["index.html"]
