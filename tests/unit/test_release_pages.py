"""The pages of a version: whole, escaped, fetching nothing, with a program that is sound Python."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tasks.arrays import save_arrays
from tasks.domain.recipe import Recipe
from tasks.domain.release import ReleaseFile
from tasks.report.model_pages import ModelView, VersionRow, model_pages, root_pages
from tasks.report.release_pages import INDEX, README, Extras, release_pages
from tasks.report.snippet import snippet
from tests.unit.test_report import HOSTILE, Reader, recipe, release

if TYPE_CHECKING:
    from pathlib import Path

FILES = (ReleaseFile(path="onnx/model.onnx", sha256="cd" * 32, size_bytes=13_900_000),)

TEXT = "é`\"'"


def pages(*, snippet: str = "print()", **changes: Any) -> dict[str, str]:
    made = release()
    held = made.source.recipe.model_copy(update=changes)
    source = made.source.model_copy(update={"recipe": held})
    extras = Extras(snippet, '<svg class="onnx-graph"></svg>')
    return release_pages(made.model_copy(update={"source": source}), 7, FILES, extras)


def changed(**fields: Any) -> Recipe:
    return Recipe.model_validate(recipe().model_dump() | fields)


def picture_recipe(dtype: str, layout: str, **preprocessing: Any) -> Recipe:
    shape = ["batch", 3, 6, 8] if layout == "NCHW" else ["batch", 6, 8, 3]
    domain = {"kind": "range", "low": 0, "high": 255}
    image = {"name": "im", "dtype": dtype, "shape": shape, "layout": layout, "domain": domain}
    outputs = recipe().signature.model_dump()["outputs"]
    return changed(signature={"inputs": [image], "outputs": outputs}, preprocessing=preprocessing)


def test_both_pages_say_what_a_reader_wants_first() -> None:
    made = pages()

    for text in (made[README], Reader(made[INDEX]).text):
        for fact in ("net, version 7", "A net.", "MIT", "accuracy", "0.987", "13.9 MB", "cd" * 32):
            assert fact in text
        assert "RANDOM WEIGHTS" not in text
    for link in ("manifest.json", "parity/report.html", "graph.svg", "golden/inputs/random.npz"):
        assert f"({link})" in made[README]
        assert f'href="{link}"' in made[INDEX]


def test_random_weights_are_said_before_anything_else() -> None:
    made = pages(source=recipe(seeded=True).source)

    assert made[README].index("RANDOM WEIGHTS") < made[README].index("A net.")
    text = Reader(made[INDEX]).text
    assert text.index("RANDOM WEIGHTS") < text.index("What it is")


def all_pages() -> dict[str, str]:
    row = VersionRow(version=1, date="now", description="A net.", licence="MIT")
    view = ModelView(model="net", versions=(row,), older=3, aliases={"latest": 1})
    return {
        "version": pages()[INDEX],
        "model": model_pages(view)[INDEX],
        "bucket": root_pages(["net"])[INDEX],
    }


@pytest.mark.parametrize("kind", ["version", "model", "bucket"])
def test_a_page_is_whole_and_fetches_nothing(kind: str) -> None:
    page = all_pages()[kind]

    tags = Reader(page).tags
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint(tags)
    assert not re.search(r"\bsrc\s*=|@import|url\(", page)
    assert not re.search(r'href="(/|\w+:)', page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_what_others_wrote_is_escaped() -> None:
    made = pages(description=HOSTILE, licence=HOSTILE, snippet=f"{HOSTILE}\n")
    row = VersionRow(version=1, date="now", description=HOSTILE, licence=HOSTILE)
    view = ModelView(model="net", versions=(row,), older=0, aliases={})
    above = model_pages(view)

    for page in (made[INDEX], above[INDEX]):
        assert "<script" not in page
        assert HOSTILE in Reader(page).text
    outside_code = re.sub(r"^```.*?^```", "", made[README], flags=re.MULTILINE | re.DOTALL)
    assert "<script" not in outside_code.replace("\\<", "")
    assert "<script" not in above[README].replace("\\<", "")


def test_nothing_in_the_program_can_end_its_block() -> None:
    text = pages(snippet="a = '''\n````\n'''\n")[README]

    assert "\n`````python\na = '''\n````\n'''\n`````\n" in text


def test_the_same_release_gives_the_same_bytes() -> None:
    """A retry that brought other ones would take a new number."""
    assert pages() == pages()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param({"resize": 12, "channels": "BGR", "mean": [1, 2, 3]}, id="crop-bgr"),
        pytest.param({"interpolation": "bicubic", "std": [0.2, 0.3, 0.4]}, id="squeeze"),
        pytest.param({"scale": 2.0, "mean": [9, 9, 9]}, id="out-of-range"),
    ],
)
def test_the_program_prepares_a_picture_as_the_proof_did(
    layout: str, dtype: str, steps: dict[str, Any], tmp_path: Path
) -> None:
    from PIL import Image

    from tasks.steps.pictures import picture_rows

    made = picture_recipe(dtype, layout, **steps)
    pixels = np.random.default_rng(0).integers(0, 256, (31, 47, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")

    program = snippet(made, tmp_path, labelled=False)

    names: dict[str, Any] = {"np": np, "Image": Image}
    body = ast.parse(program).body
    functions: list[ast.stmt] = [each for each in body if isinstance(each, ast.FunctionDef)]
    exec(compile(ast.Module(functions, []), "readme", "exec"), names)
    row = names["preprocess"](tmp_path / "picture.png")
    expected = picture_rows(made, (tmp_path / "picture.png",))[:1]  # the rest are views of it
    assert row.dtype == expected.dtype
    np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize(
    ("dtype", "row", "line"),
    [
        ("float32", np.array([[5.1, 0.2]], np.float32), 'np.array([[5.1, 0.2]], dtype="float32")'),
        ("int64", np.array([[2**53 + 1]]), f'np.array([[{2**53 + 1}]], dtype="int64")'),
        ("string", np.array([TEXT]), f"np.array([{TEXT!a}], dtype=object)"),
        (
            "float32",
            np.zeros((1, 65), np.float32),
            "np.load(\"golden/inputs/random.npz\")['x'][:1]",
        ),
        ("float32", np.full((1, 2), np.inf, np.float32), 'np.load("golden/inputs/random.npz")'),
    ],
)
def test_the_program_has_a_row_of_its_own(dtype: str, row: Any, line: str, tmp_path: Path) -> None:
    domain: dict[str, Any] = {"kind": "range", "low": 0, "high": 1}
    x = {"name": "x", "dtype": dtype, "shape": ["batch", *row.shape[1:]], "domain": domain}
    outputs = recipe().signature.model_dump()["outputs"]
    made = changed(signature={"inputs": [x], "outputs": outputs})
    save_arrays(tmp_path / "random.npz", {"x": np.repeat(row, 2, axis=0)})

    program = snippet(made, tmp_path, labelled=True)

    assert line in program
    (value,) = [each for each in ast.parse(program).body if "inputs" in ast.unparse(each)][:1]
    assert isinstance(value, ast.Assign)


def test_a_model_page_lists_versions_and_the_aliases_that_stand_on_them() -> None:
    rows = (
        VersionRow(
            version=12, date="2026-11-25 03:00 UTC", formats=(("ONNX", "c", "1 MB", "3 %"),)
        ),
        VersionRow(version=11),
    )
    made = model_pages(
        ModelView(model="net", versions=rows, older=9, aliases={"latest": 12, "prod": 11})
    )

    lines = [line for line in made[README].splitlines() if line.startswith("| [")]
    assert lines[0] == "| [12](12/README.md) | 2026-11-25 03:00 UTC | latest | ONNX: c, 1 MB, 3 % |"
    assert lines[1] == "| [11](11/README.md) | (its manifest cannot be read) | prod |  |"
    assert "9 older numbers" in made[README]
    text = Reader(made[INDEX]).text
    assert text.index("12 latest") < text.index("11 prod")
    assert 'href="12/index.html"' in made[INDEX]
