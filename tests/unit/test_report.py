"""The page and the table: they say the verdict first, escape everything, and fetch nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tasks.domain.artifact import (
    Attempt,
    Cost,
    ModelArtifact,
    ModelFormat,
    OnnxFacts,
    StoredFile,
    StoredTree,
    VerifiedArtifact,
)
from tasks.domain.comparison import compare_probe
from tasks.domain.fingerprint import Fingerprint
from tasks.domain.matrix import Cell, Matrix
from tasks.domain.parity import ParityReport
from tasks.domain.profiles import PROFILES
from tasks.domain.recipe import Recipe
from tasks.domain.release import (
    Candidate,
    ProbeInfo,
    Reference,
    Release,
    SourceModel,
    Standing,
)
from tasks.report import parity_html, parity_markdown
from tasks.report.figures import cosine, figure, seconds, share, size

HOSTILE = '<script>alert(1)</script> & "quotes" | pipes | *stars*'
PROBES = ("random", "zeros", "single-row")


def recipe(*, seeded: bool = False, description: str = "A net.") -> Recipe:
    download = {"uri": "https://example.org/net.pth", "sha256": "0" * 64}
    named = {} if seeded else {"weights": "IMAGENET1K_V1", "download": download}
    domain = {"kind": "range", "low": -2, "high": 2}
    image = {"name": "image", "dtype": "float32", "shape": ["batch", 4], "domain": domain}
    return Recipe.model_validate(
        {
            "name": "net",
            "description": description,
            "tags": ["vision"],
            "licence": "MIT",
            "source": {"kind": "torchvision", "model": "net", **named},
            "signature": {
                "inputs": [image],
                "outputs": [
                    {"name": "logits", "dtype": "float32", "shape": ["batch", 9], "role": "logits"},
                    {"name": "label", "dtype": "int64", "shape": ["batch"], "role": "labels"},
                ],
            },
            "targets": ["onnx", "saved_model"],
        }
    )


def report(format_: ModelFormat, *, stray: float = 0.0, hole: bool = False) -> ParityReport:
    rng = np.random.default_rng(0)
    outputs, probes = recipe().signature.outputs, []
    for name in PROBES:
        logits = rng.normal(size=(3, 9)).astype(np.float32)
        other = logits + np.float32(1e-6)
        other[0, 4] = np.nan if hole and name == "zeros" else other[0, 4] + np.float32(stray)
        left = {"logits": logits, "label": logits.argmax(1)}
        right = {"logits": other, "label": logits.argmax(1)}
        probes.append(compare_probe(name, outputs, left, right, "float32-conv"))
    return ParityReport(
        reference=ModelFormat.TORCH,
        candidate=format_,
        runtime="onnxruntime 1.32.0 CPUExecutionProvider",
        profile="float32-conv",
        tolerance=PROFILES["float32-conv"].base,
        probes=tuple(probes),
        discriminates=True,
    )


def release(*, reason: str = "first choice, and proven", changes: tuple[str, ...] = ()) -> Release:
    made = recipe()

    def artifact(format_: ModelFormat) -> ModelArtifact:
        file = StoredFile(key=f"{format_}/model", sha256="ab" * 32, size_bytes=13_900_000)
        tree = StoredTree(root=str(format_), files=(file,))
        return ModelArtifact(model="net", format=format_, signature=made.signature.plain, tree=tree)

    facts = OnnxFacts(
        ir_version=10,
        opsets={"ai.onnx": 17},
        operators={},
        parameters=3_487_816,
        external_data=False,
    )
    cost = Cost(seconds=75.2, peak_mb=912)
    candidates = [
        Candidate(
            verified=VerifiedArtifact(
                artifact=artifact(format_), checks=("onnx.checker",), onnx=facts
            ),
            converter="torch-dynamo",
            attempts=(Attempt(converter="torch-dynamo", succeeded=True, reason=reason, cost=cost),),
            parity=report(format_),
            export_cost=cost,
            verify_cost=Cost(),
            parity_cost=cost,
        )
        for format_ in (ModelFormat.ONNX, ModelFormat.SAVED_MODEL)
    ]
    tree = artifact(ModelFormat.TORCH).tree
    standing = Standing(
        fingerprint=Fingerprint.of({"recipe.opset": "17"}),
        version=3 if changes else None,
        changes=changes,
    )
    return Release(
        standing=standing,
        source=SourceModel(
            recipe=made,
            artifact=artifact(ModelFormat.TORCH),
            metrics={"accuracy": 0.987},
            cost=cost,
        ),
        reference=Reference(
            probes=tuple(ProbeInfo(name=name, rows=3, about="drawn") for name in PROBES),
            inputs=tree,
            answers=tree,
            runtime="torch 2.14.1 cpu",
            cost=cost,
        ),
        candidates=tuple(candidates),
    )


def page_of_a_release(**fields: Any) -> str:
    made = release(**fields)
    reports = [each.parity for each in made.candidates]
    return parity_html(recipe(), reports, release=made, tools={"torch": "2.14.1"})


def page_of_a_failure() -> str:
    reports = [report(ModelFormat.ONNX), report(ModelFormat.SAVED_MODEL, stray=0.3, hole=True)]
    return parity_html(recipe(seeded=True), reports, failed=f"no converter won\n- {HOSTILE}")


class Reader(HTMLParser):
    """Keeps the text and every tag, and insists that each one is closed."""

    VOID = ("meta", "br", "link", "img", "line", "rect", "path")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.append(tag)
        if tag not in self.VOID or tag == "rect":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


PAGES = {"release": page_of_a_release, "failure": page_of_a_failure}


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_is_whole_and_fetches_nothing(kind: str) -> None:
    page = PAGES[kind]()

    reader = Reader(page)
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint(reader.tags)
    assert not re.search(r"\b(src|href)\s*=|@import|url\(", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("kind", PAGES)
def test_every_picture_is_told_in_words_too(kind: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", PAGES[kind](), re.DOTALL)

    assert len(pictures) == 3
    for picture in map(ET.fromstring, pictures):
        assert picture.get("role") == "img"
        assert len(picture.get("aria-label", "")) > 20


def test_a_proven_release_says_so_first() -> None:
    text = Reader(page_of_a_release()).text

    said = "ONNX and TensorFlow SavedModel answer as PyTorch does, on 9 rows of 3 probes"
    assert said in text
    assert text.index("✔ PROVEN") < text.index(said) < text.index("The way of the model")
    assert "RANDOM WEIGHTS" not in text
    for fact in ("accuracy 0.987", "13.9 MB", "opset 17, 3,487,816 weights", "torch 2.14.1 cpu"):
        assert fact in text
    assert "1 min 15 s" in text


def test_a_failed_run_says_the_reason_first() -> None:
    text = Reader(page_of_a_failure()).text

    first = "TensorFlow SavedModel: random/logits: 1 of 27 elements stray beyond the tolerance"
    assert text.index("✘ NOT PROVEN") < text.index(first) < text.index("The way of the model")
    assert text.index("RANDOM WEIGHTS") < text.index(first)
    assert "zeros/logits: 1 of 27 elements are NaN or infinite on one side only" in text
    assert "differs in 3 of 3 probes" in text
    assert "RANDOM WEIGHTS (seed 0)" in text


def test_a_page_says_what_changed_since_the_last_version() -> None:
    text = Reader(page_of_a_release(changes=("recipe.opset 17 -> 20", "onnx 1.22 -> 1.23"))).text

    assert "What changed since version 3 recipe.opset 17 -> 20 onnx 1.22 -> 1.23" in text
    assert "What changed" not in Reader(page_of_a_release()).text


def test_what_others_wrote_is_escaped() -> None:
    wicked = recipe(description=HOSTILE)

    page = parity_html(wicked, [report(ModelFormat.ONNX)], failed=HOSTILE)

    assert "<script" not in page
    assert HOSTILE in Reader(page).text
    assert HOSTILE in Reader(page_of_a_release(reason=HOSTILE)).text


def test_a_run_that_compared_nothing_still_has_a_page() -> None:
    text = Reader(parity_html(recipe(), [], failed="export: killed by SIGKILL")).text

    assert "Nothing was compared with PyTorch" in text
    assert "killed by SIGKILL" in text
    assert "not reached" in text


def test_a_second_converter_that_succeeds_makes_the_run_succeed() -> None:
    tries = [report(ModelFormat.ONNX, stray=0.3), report(ModelFormat.ONNX)]

    text = Reader(parity_html(recipe(), tries)).text

    assert "✔ PROVEN" in text
    assert "ONNX, try 2" in text


def test_the_table_has_a_row_for_each_output_and_as_many_cells_in_each() -> None:
    table = parity_markdown(
        recipe(), [report(ModelFormat.ONNX), report(ModelFormat.SAVED_MODEL, stray=0.3)]
    )

    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 * 2 * len(PROBES)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {14}
    assert "- ✅ ONNX against PyTorch: equal" in table
    assert "- ❌ TensorFlow SavedModel differs" in table


def test_a_table_of_random_weights_says_so() -> None:
    assert "RANDOM WEIGHTS" in parity_markdown(recipe(seeded=True), [])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (figure(0), "0"),
        (figure(3.44e-6), "3.4e-06"),
        (figure(np.inf), "∞"),
        (cosine(1), "1"),
        (cosine(1 - 2e-9), "1 - 2e-09"),
        (cosine(-0.5), "-0.5000"),
        (share(0), "0"),
        (share(1e-9), "< 0.001 %"),
        (share(0.0123), "1.2 %"),
        (share(0.53), "53 %"),
        (share(2.25), "2.2x"),
        (share(18_700), "18,700x"),
        (share(np.inf), "∞"),
        (seconds(0.84), "0.8 s"),
        (seconds(200), "3 min 20 s"),
        (size(13_900_000), "13.9 MB"),
        (size(3_200), "3.2 kB"),
    ],
)
def test_figures_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected


def test_importing_the_report_is_light() -> None:
    code = "import sys, tasks.report; print(*{'jinja2', 'numpy', 'prefect'} & sys.modules.keys())"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


def with_matrix() -> ParityReport:
    cells = (
        Cell(runtime="ONNX Runtime", level="all", passed=True, words="equal", budget=0.25),
        Cell(runtime="ONNX Runtime", level="basic", passed=False, words=HOSTILE, budget=3.0),
        Cell(runtime="TFLite", passed=None, words="not run: not made"),
    )
    matrix = Matrix(probes=("random",), rows=4, cells=cells)
    return report(ModelFormat.ONNX).model_copy(update={"matrix": matrix})


def test_every_way_to_run_it_is_in_the_page_and_the_table() -> None:
    page = parity_html(recipe(), (with_matrix(),))
    table = parity_markdown(recipe(), (with_matrix(),))

    assert "Every way to run it" in page
    assert page.count("not run: not made") == 1
    assert "<script>" not in page
    assert "| TFLite |  | CPU |  |  | not run: not made |" in table
    assert "| ONNX Runtime | all | CPU | pass |" in table
    assert "| ONNX Runtime | basic | CPU | FAIL |" in table
    assert "Every way to run it" not in parity_html(recipe(), (report(ModelFormat.ONNX),))


def test_a_model_that_is_right_at_one_level_alone_does_not_pass() -> None:
    compared = with_matrix()

    assert all(each.passed for each in compared.probes)
    assert not compared.passed
    assert compared.reasons() == (f"ONNX Runtime, optimisation basic, CPU: {HOSTILE}",)
