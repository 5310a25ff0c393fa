"""What is said of a release beside the one before it, and what of it is flagged."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.domain.drift import Drift, Replay, SourceDrift, with_drift
from tasks.domain.parity import ParityReport, RankAgreement
from tasks.domain.release import Candidate, Manifest, Release
from tasks.report import parity_html
from tests.unit.test_repetition_notes import manifest
from tests.unit.test_report import Reader
from tests.unit.test_report import release as plain_release

HOST = {"cpu": "one", "cores": "2"}


def changed(report: ParityReport, max_abs: float, budget: float, top1: int = 3) -> ParityReport:
    """Return the report with the same figures everywhere."""
    probes = []
    for probe in report.probes:
        outputs = []
        for each in probe.outputs:
            if each.errors is None:
                outputs.append(each)
                continue
            errors = each.errors.model_copy(update={"max_abs": max_abs, "budget": budget})
            ranks = RankAgreement(rows=3, top1_equal=top1, top5_equal=3, ties_swapped=0)
            outputs.append(each.model_copy(update={"errors": errors, "ranks": ranks}))
        probes.append(probe.model_copy(update={"outputs": tuple(outputs)}))
    return report.model_copy(update={"probes": tuple(probes)})


def released(ms: float | None = 2.0, **figures: Any) -> Release:
    made = plain_release()
    first = made.candidates[0]
    candidate = first.model_copy(
        update={"parity": changed(first.parity, **figures), "ms_per_row": ms}
    )
    return made.model_copy(update={"candidates": (candidate,)})


def before(ms: float | None = 2.0, size: int | None = None, **figures: Any) -> Manifest:
    made = released(ms, **figures)
    found = manifest(made, host=HOST)
    size = size or made.candidates[0].verified.artifact.tree.size_bytes
    update = {"ms_per_row": ms, "size_bytes": size}
    formats = tuple(each.model_copy(update=update) for each in found.formats)
    return found.model_copy(update={"formats": formats})


def drift(now: Release, then: Manifest | None, host: dict[str, str] = HOST) -> Drift:
    (candidate,) = with_drift(now, then, host).candidates
    assert candidate.drift
    return candidate.drift


@pytest.mark.parametrize(
    ("now", "then", "flagged"),
    [
        pytest.param((1e-4, 0.5), (1e-5, 0.05), True, id="ten-times-is-flagged"),
        pytest.param((9e-5, 0.5), (1e-5, 0.05), False, id="nine-times-is-not"),
        pytest.param((1e-4, 0.5), (0.0, 0.0), True, id="from-nothing-to-something"),
        pytest.param((1e-6, 0.005), (1e-9, 1e-6), False, id="far-within-the-tolerance"),
        pytest.param((1e-6, 0.05), (1e-5, 0.5), False, id="better-than-before"),
    ],
)
def test_an_error_ten_times_the_last_one_is_flagged_though_it_passes(
    now: tuple[float, float], then: tuple[float, float], *, flagged: bool
) -> None:
    found = drift(released(max_abs=now[0], budget=now[1]), before(max_abs=then[0], budget=then[1]))

    assert [each.flagged for each in found.errors] == [flagged]
    assert bool(found.flags) == flagged


def test_best_classes_size_and_latency_are_compared_too() -> None:
    now = released(6.0, max_abs=1e-5, budget=0.1, top1=2)
    size = now.candidates[0].verified.artifact.tree.size_bytes

    found = drift(now, before(2.0, size // 2, max_abs=1e-5, budget=0.1))

    assert found.top1_missed == len(now.candidates[0].parity.probes)
    assert found.last_top1_missed == 0
    assert [each.split(",")[-1] for each in found.flags] == [
        f"the best class is missed in {found.top1_missed} rows (in version 3: 0)",
        " at least 2 times version 3's",
        " at least 3 times version 3's",
    ]


@pytest.mark.parametrize(
    ("ms", "host", "why"),
    [(2.0, HOST | {"cpu": "two"}, "other host"), (None, HOST, "not measured"), (2.0, HOST, "")],
)
def test_times_are_compared_on_the_same_host_alone(
    ms: float | None, host: dict[str, str], why: str
) -> None:
    found = drift(released(max_abs=0, budget=0), before(ms, max_abs=0, budget=0), host)

    assert why in found.latency
    assert (found.ms_per_row is None) == bool(why)


def test_a_first_release_and_a_new_format_have_nothing_to_compare_with() -> None:
    now = released(max_abs=0.0, budget=0.0)
    without = before(max_abs=0.0, budget=0.0).model_copy(update={"formats": ()})

    assert with_drift(now, None, HOST).candidates[0].drift is None
    assert with_drift(now, without, HOST).candidates[0].drift is None


def test_a_manifest_and_a_candidate_of_before_have_no_drift() -> None:
    old = before(max_abs=0.0, budget=0.0).model_dump(mode="json")
    del old["replay"], old["formats"][0]["drift"]

    assert Manifest.model_validate(old).replay is None
    assert Candidate.model_fields["drift"].default is None


def test_the_report_says_how_it_compares_and_marks_what_deserves_a_look() -> None:
    now = with_drift(released(max_abs=1e-4, budget=0.5), before(max_abs=1e-6, budget=0.01), HOST)
    moved = SourceDrift(output="logits", rows=9, max_abs=0.5, changed=2)
    replay = Replay(version=3, rows=9, source=(moved,))
    now = now.model_copy(update={"reference": now.reference.model_copy(update={"replay": replay})})

    page = parity_html(now.source.recipe, [now.candidates[0].parity], release=now)

    text = Reader(page).text
    assert "Beside the release before" in text
    assert "the source answers 2 of 9 rows otherwise in 'logits'" in text
    assert "largest error 0.0001, was 1e-06" in text
    assert "worth a look ONNX: logits: its largest error is 0.0001, at least 10 times" in text
