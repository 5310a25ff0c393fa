"""The gate catches every planted fault, and the diagnosis names its stage and its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.isolation import Children
from tests.corpus.faults import FAULTS
from tests.corpus.goods import OPTIMISED, RAW, RECIPES, SIMPLIFIED, Good, make_good
from tests.corpus.proving import diagnose, gate, plant

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


LEAST_SHARE = 0.8
"""Of the faults whose node must be named; their stage must be, for all."""


def test_the_diagnosis_names_the_stage_of_all_and_the_node_of_most(
    goods: dict[str, Good], tmp_path: Path
) -> None:
    wrong_stages, missed = [], []
    for name, fault in FAULTS.items():
        good, folder = goods[fault.good], tmp_path / name
        right = plant(fault, good, folder / "bad")
        report = gate(good, folder / "bad", folder / "answers")

        found = diagnose(fault, good, folder / "bad", report, folder / "scratch")

        stage = found.bisection.bad.stage if found.bisection else None
        if stage != fault.stage:
            wrong_stages.append(f"{name}: {stage}, not {fault.stage}")
        culprit = found.located.culprit if found.located else None
        if culprit is None or culprit.node not in right:
            missed.append(f"{name}: {found.located.words if found.located else 'nothing'}")
    assert not wrong_stages, "\n".join(wrong_stages)
    share = 1 - len(missed) / len(FAULTS)
    assert share >= LEAST_SHARE, f"{share:.0%} named; missed:\n" + "\n".join(missed)
