"""What a waiver lets through, until when, and what no waiver can."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tasks.domain.artifact import ModelFormat
from tasks.domain.comparison import compare_probe
from tasks.domain.parity import ParityReport, TaskMetric
from tasks.domain.profiles import PROFILES
from tasks.domain.signature import OutputSpec
from tasks.domain.waivers import Waiver, apply_waivers, expired

if TYPE_CHECKING:
    from numpy.typing import NDArray

TODAY = date(2026, 3, 1)
SPEC = OutputSpec(name="logits", dtype="float32", shape=("batch", 4), role="logits")
RIGHT = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def waiver(**changes: Any) -> Waiver:
    fields = {
        "kinds": ["numbers", "ranks"],
        "reason": "the runtime of the device rounds so",
        "owner": "ada@example.org",
        "expires": "2026-03-01",
    }
    return Waiver.model_validate(fields | changes)


def report(candidate: NDArray[Any], probe: str = "random") -> ParityReport:
    compared = compare_probe(probe, [SPEC], {"logits": RIGHT}, {"logits": candidate}, "trees")
    return ParityReport(
        reference=ModelFormat.TORCH,
        candidate=ModelFormat.ONNX,
        runtime="onnxruntime",
        profile="trees",
        tolerance=PROFILES["trees"].base,
        probes=(compared,),
        discriminates=True,
    )


def strayed() -> ParityReport:
    found = report(-RIGHT)
    assert not found.passed
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"output": "logits"},
        {"probe": "random"},
        {"format": "onnx"},
        {"expires": "2026-03-02"},
    ],
    ids=str,
)
def test_what_it_covers_is_waived_and_never_called_passed(changes: dict[str, Any]) -> None:
    found = apply_waivers(strayed(), [waiver(**changes)], TODAY)

    assert found.passed
    (output,) = found.probes[0].outputs
    assert not output.passed
    assert output.waived is not None
    assert output.waived.owner == "ada@example.org"
    assert "1 waived comparison" in found.summary()
    assert found.reasons() == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"output": "label"},
        {"probe": "pictures"},
        {"format": "saved_model"},
        {"variant": "float16"},
        {"kinds": ["numbers"]},
        {"kinds": ["task-metric"]},
        {"expires": "2026-02-28"},
    ],
    ids=str,
)
def test_what_it_does_not_cover_fails_as_before(changes: dict[str, Any]) -> None:
    found = apply_waivers(strayed(), [waiver(**changes)], TODAY)

    assert not found.passed
    assert found.probes[0].outputs[0].waived is None


def test_two_waivers_may_cover_what_neither_does_alone() -> None:
    numbers = waiver(kinds=["numbers"], owner="ada", expires="2026-06-01")
    ranks = waiver(kinds=["ranks"], owner="grace", expires="2026-04-01")

    found = apply_waivers(strayed(), [numbers, ranks], TODAY)

    waived = found.probes[0].outputs[0].waived
    assert waived is not None
    assert (waived.owner, waived.expires) == ("ada, grace", date(2026, 4, 1))


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(np.where(RIGHT > 0, np.nan, RIGHT), id="nan"),
        pytest.param(np.where(RIGHT > 0, np.inf, RIGHT), id="infinity"),
        pytest.param(RIGHT[:, :3], id="shape"),
        pytest.param((-RIGHT).astype(np.float64), id="dtype"),
    ],
)
def test_no_waiver_covers_what_no_number_excuses(fault: NDArray[Any]) -> None:
    everything = waiver(kinds=["numbers", "ranks", "labels", "task-metric"])

    assert not apply_waivers(report(fault), [everything], TODAY).passed


def test_a_missing_output_is_not_waived() -> None:
    compared = compare_probe("random", [SPEC], {"logits": RIGHT}, {}, "trees")
    found = report(RIGHT).model_copy(update={"probes": (compared,)})

    assert not apply_waivers(found, [waiver()], TODAY).passed


def test_a_waiver_that_nothing_needs_is_said() -> None:
    found = apply_waivers(report(RIGHT), [waiver(output="logits")], TODAY)

    assert found.passed
    (note,) = found.notes
    assert note == (
        "the waiver of numbers, ranks of every probe/logits (owner: ada@example.org, until "
        "2026-03-01) is no longer needed: remove it"
    )


def test_the_last_day_still_holds_and_the_next_does_not() -> None:
    waivers = [waiver(), waiver(expires="2026-02-28", output="logits")]

    ((position, words),) = expired(waivers, TODAY)

    assert position == 1
    assert words.startswith(
        "the waiver of numbers, ranks of every probe/logits expired (its last day was 2026-02-28, "
        "today is 2026-03-01; owner: ada@example.org)."
    )


def test_a_variant_has_waivers_of_its_own() -> None:
    found = apply_waivers(strayed(), [waiver(variant="int8")], TODAY, variant="int8")

    assert found.passed


def test_a_task_metric_is_waived_by_its_own_kind() -> None:
    worse = TaskMetric(
        probe="held-out",
        name="accuracy",
        output="logits",
        rows=50,
        source=0.9,
        candidate=0.8,
        budget=0,
    )
    found = report(RIGHT).model_copy(update={"metrics": (worse,)})

    other = apply_waivers(found, [waiver()], TODAY)
    waived = apply_waivers(found, [waiver(kinds=["task-metric"])], TODAY)

    assert not other.passed
    assert "accuracy 0.8000, the source's is 0.9000" in other.reasons()[0]
    assert waived.passed
