"""Noise, errors by size, worst rows, holes and waivers are shown, and never taken for a pass."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

import numpy as np

from tasks.domain.artifact import ModelFormat
from tasks.domain.comparison import compare_probe
from tasks.domain.noise import Truth
from tasks.domain.parity import ParityReport, TaskMetric
from tasks.domain.profiles import PROFILES
from tasks.domain.recipe import Recipe
from tasks.domain.waivers import Waiver, apply_waivers
from tasks.report import parity_html, parity_markdown
from tasks.report.histogram import histograms

RECIPE = Recipe.model_validate(
    {
        "name": "net",
        "description": "A network.",
        "licence": "none",
        "source": {"kind": "torchvision", "model": "net"},
        "signature": {
            "inputs": [
                {
                    "name": "x",
                    "dtype": "float32",
                    "shape": ["batch", 4],
                    "domain": {"kind": "range", "low": 0, "high": 1},
                }
            ],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 8]}],
        },
    }
)
WAIVER = Waiver(
    kinds=("numbers",),
    reason="The runtime pads <wrongly>; mended in its next release.",
    owner="mara@example.org",
    expires=date(2027, 3, 1),
)
TODAY = date(2026, 6, 1)


def report(*waivers: Waiver, stray: float = 0.0) -> ParityReport:
    right = np.random.default_rng(0).normal(size=(9, 8)) * 10
    noise = np.random.default_rng(1).normal(size=(2, 9, 8)) * 1e-5
    own, candidate = ((right + each).astype(np.float32) for each in noise)
    own[4, 2] = candidate[4, 2] = np.nan
    candidate[7, 1] += stray
    probe = compare_probe(
        "random",
        RECIPE.signature.outputs,
        {"y": own},
        {"y": candidate},
        "float32-conv",
        Truth(np.arange(9), {"y": right}),
    )
    metric = TaskMetric(
        probe="held-out",
        name="accuracy",
        output="y",
        rows=64,
        source=0.95,
        candidate=0.95,
        budget=0,
    )
    found = ParityReport(
        reference=ModelFormat.TORCH,
        candidate=ModelFormat.ONNX,
        runtime="onnxruntime 1.32.0 CPUExecutionProvider",
        profile="float32-conv",
        tolerance=PROFILES["float32-conv"].base,
        probes=(probe,),
        discriminates=True,
        noise="float64 by torch 2.14 cpu on 9 rows",
        metrics=(metric,),
    )
    return apply_waivers(found, waivers, TODAY)


def test_both_forms_show_the_noise_with_its_bounds_and_the_task_metric() -> None:
    found = report()
    noise = found.probes[0].outputs[0].noise

    for text in (parity_html(RECIPE, [found]), parity_markdown(RECIPE, [found])):
        assert "float64 by torch 2.14 cpu on 9 rows" in text
        assert noise is not None
        assert f"{noise.ratio_max:.2f} of 10" in text
        assert f"{noise.ratio_rms:.2f} of 6" in text
        assert "accuracy" in text
        assert "0.9500" in text


def test_both_forms_say_where_nan_is_though_it_is_on_both_sides() -> None:
    for text in (parity_html(RECIPE, [report()]), parity_markdown(RECIPE, [report()])):
        assert "1 NaN and 0 infinite" in text
        assert "in 1 row (4), at 1 element (2)" in text


def test_a_waived_comparison_is_shown_with_reason_owner_and_day_and_not_as_passed() -> None:
    found = report(WAIVER, stray=1)

    page, table = parity_html(RECIPE, [found]), parity_markdown(RECIPE, [found])

    assert found.passed
    for text in (page, table):
        assert "WAIVED" in text
        assert "mara@example.org" in text
        assert "2027-03-01" in text
        assert "mended in its next release" in text
        assert "but for 1 waived comparison" in text
    assert "PROVEN, BUT FOR WAIVERS" in page
    assert "<wrongly>" not in page
    assert "✅" not in table


def test_a_waiver_that_nothing_needs_is_told() -> None:
    found = report(WAIVER)

    for text in (parity_html(RECIPE, [found]), parity_markdown(RECIPE, [found])):
        assert "is no longer needed" in text


def test_the_page_names_the_worst_row() -> None:
    page = parity_html(RECIPE, [report(stray=1)])

    assert "the rows that use most of their tolerance" in page
    assert '<td class="num">7</td>' in page


def test_the_columns_of_a_histogram_stand_for_every_element_once() -> None:
    found = report(stray=1)

    [picture] = histograms([found, found], ["one", "two"])

    assert picture.output == "y"
    assert {each.series for each in picture.columns} == {0, 1}
    counts = [int(each.title.split(": ")[1].split()[0]) for each in picture.columns]
    assert sum(counts) == 2 * (9 * 8 - 1)
    assert [label for _, label in picture.labels][:3] == ["none", "below", "1e-9"]
    assert "1e-07 to 1e-06" in picture.about


def test_the_report_needs_no_numpy() -> None:
    code = "import sys, tasks.report; sys.exit('numpy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
