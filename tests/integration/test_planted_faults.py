"""The gate catches every planted fault, and the diagnosis names its stage and its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.isolation import Children
from tests.corpus.faults import FAULTS
from tests.corpus.goods import OPTIMISED, RAW, RECIPES, SIMPLIFIED, Good, make_good
from tests.corpus.proving import gate, plant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.domain.diagnosis import Optimisation


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Good]]:
    folder = tmp_path_factory.mktemp("goods")
    with Children(folder) as children:
        yield {name: make_good(name, children, folder / name) for name in RECIPES}


@pytest.mark.parametrize("optimisation", ["off", "basic", "all"])
@pytest.mark.parametrize("file", [RAW, OPTIMISED, SIMPLIFIED])
@pytest.mark.parametrize("name", RECIPES)
def test_a_sound_export_passes_at_every_stage(
    goods: dict[str, Good], tmp_path: Path, name: str, file: str, optimisation: Optimisation
) -> None:
    good = goods[name]

    report = gate(good, good.folder / file, tmp_path / "answers", optimisation)

    assert report is not None
    assert report.passed, report.summary()


@pytest.mark.parametrize("name", FAULTS)
def test_the_checker_passes_what_the_gate_does_not(
    goods: dict[str, Good], tmp_path: Path, name: str
) -> None:
    fault = FAULTS[name]
    good = goods[fault.good]
    plant(fault, good, tmp_path / "bad")

    report = gate(good, tmp_path / "bad", tmp_path / "answers")

    # None: ONNX Runtime does not run it, and a release ends there
    assert report is None or not report.passed
    assert report is None or report.reasons()
