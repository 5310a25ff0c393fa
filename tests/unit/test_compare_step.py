"""What comparing all probes together adds to comparing each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.arrays import save_arrays
from tasks.domain.artifact import ModelFormat
from tasks.domain.recipe import Recipe
from tasks.domain.release import ProbeInfo
from tasks.steps.compare import CompareRequest, compare
from tasks.steps.float64 import ROWS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.domain.parity import ParityReport

RECIPE = Recipe.model_validate(
    {
        "name": "net",
        "description": "A network.",
        "licence": "none",
        "source": {"kind": "train-torch", "dataset": "digits", "network": "cnn"},
        "signature": {
            "inputs": [
                {
                    "name": "x",
                    "dtype": "float32",
                    "shape": ["batch", 4],
                    "domain": {"kind": "range", "low": 0, "high": 1},
                }
            ],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 4]}],
        },
    }
)
RIGHT = np.random.default_rng(0).normal(size=(16, 4)) * 10


def off(by: float, seed: int) -> NDArray[np.float32]:
    scale = np.abs(RIGHT).max(axis=1, keepdims=True)
    stray = np.random.default_rng(seed).uniform(-by, by, RIGHT.shape) * scale
    answer: NDArray[np.float32] = (RIGHT + stray).astype(np.float32)
    return answer


def report(folder: Path, own: NDArray[Any], candidate: NDArray[Any], *wide: str) -> ParityReport:
    """Compare the same answers to two probes, of which ``wide`` were answered in float64 too."""
    names = ("random", "size-batch-3")
    for side in ("reference", "answers", "float64"):
        (folder / side).mkdir()
    for name in names:
        save_arrays(folder / "reference" / f"{name}.npz", {"y": own})
        save_arrays(folder / "answers" / f"{name}.npz", {"y": candidate})
    for name in wide:
        save_arrays(folder / "float64" / f"{name}.npz", {"y": RIGHT, ROWS: np.arange(16)})
    return compare(
        CompareRequest(
            recipe=RECIPE,
            candidate=ModelFormat.ONNX,
            runtime="onnxruntime",
            probes=tuple(ProbeInfo(name=name, rows=16, about="") for name in names),
            reference=folder / "reference",
            answers=folder / "answers",
            float64=folder / "float64",
        )
    )


def test_the_noise_of_one_probe_holds_for_those_that_float64_did_not_answer(
    tmp_path: Path,
) -> None:
    found = report(tmp_path, off(5e-5, 1), off(5e-5, 2), "random")

    assert found.passed, found.summary()
    assert [each.probe for each in found.probes] == ["random", "size-batch-3"]
    assert found.probes[1].outputs[0].noise is None


def test_without_any_float64_the_profile_decides(tmp_path: Path) -> None:
    assert not report(tmp_path, off(5e-5, 1), off(5e-5, 2)).passed


def of_few(folder: Path, stray: float) -> ParityReport:
    """Compare one row that the source answers luckily well, and sixteen that it does not."""
    own, candidate = off(2e-6, 1), off(2e-6, 2)
    lucky, other = RIGHT[:1].astype(np.float32), off(stray, 3)[:1]
    lucky[0, 0] += np.float32(1e-6)  # not exact: so much that it says what float32 costs
    sides: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
        "reference": (own, lucky),
        "answers": (candidate, other),
        "float64": (RIGHT, RIGHT[:1]),
    }
    for side, both in sides.items():
        (folder / side).mkdir()
        for name, array in zip(("random", "single-row"), both, strict=True):
            arrays: dict[str, NDArray[Any]] = {"y": array}
            if side == "float64":
                arrays[ROWS] = np.arange(len(array))
            save_arrays(folder / side / f"{name}.npz", arrays)
    return compare(
        CompareRequest(
            recipe=RECIPE,
            candidate=ModelFormat.ONNX,
            runtime="onnxruntime",
            probes=(
                ProbeInfo(name="random", rows=16, about=""),
                ProbeInfo(name="single-row", rows=1, about=""),
            ),
            reference=folder / "reference",
            answers=folder / "answers",
            float64=folder / "float64",
        )
    )


def test_a_few_numbers_that_were_rounded_well_by_chance_borrow_the_noise_of_more(
    tmp_path: Path,
) -> None:
    found = of_few(tmp_path, 2e-6)

    noise = found.probes[1].outputs[0].noise
    assert noise is not None
    assert noise.own_max == found.probes[0].outputs[0].noise.own_max  # type: ignore[union-attr]
    assert found.passed, found.summary()


def test_a_few_numbers_beyond_all_noise_fail(tmp_path: Path) -> None:
    assert not of_few(tmp_path, 1e-4).passed


def test_a_source_that_float32_does_not_carry_cannot_be_released(tmp_path: Path) -> None:
    own = off(1e-7, 1)
    own[:8] *= np.float32(1.01)

    found = report(tmp_path, own, own, "random", "size-batch-3")

    assert not found.passed
    (reason,) = found.reasons()
    assert reason.startswith("in 16 of 32 rows the source's own float32 is more than 0.1% away")
