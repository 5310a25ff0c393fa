"""The rule of what goes and what stays, over everything that a bucket may hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.garbage import (
    GarbagePlan,
    KeepPolicy,
    Seen,
    SeenFolder,
    SeenModel,
    SeenUpload,
    SeenVersion,
    VersionState,
    plan_removals,
)

NOW = datetime(2031, 5, 1, tzinfo=UTC)
AGES = st.sampled_from([timedelta(days=days) for days in (-400, 0, 6.99, 7, 29, 31, 4000)])


@st.composite
def models(draw: st.DrawFn) -> SeenModel:
    numbers = draw(st.sets(st.integers(1, 40), max_size=12))
    versions = tuple(
        SeenVersion(
            key=f"m/{number}/",
            version=number,
            state=draw(st.sampled_from(get_args(VersionState))),
            objects=2,
            size_bytes=10,
            written=NOW - draw(AGES),
        )
        for number in numbers
    )
    needed = {number: "alias champion" for number in numbers if draw(st.booleans())}
    return SeenModel(model="m", versions=versions, needed=needed)


def version(number: int, state: VersionState = "whole", days: float = 100) -> SeenVersion:
    written = NOW - timedelta(days=days)
    return SeenVersion(
        key=f"m/{number}/", version=number, state=state, objects=1, size_bytes=5, written=written
    )


def plan(
    *versions: SeenVersion, needed: dict[int, str] | None = None, last: int = 1
) -> GarbagePlan:
    seen = Seen(now=NOW, models=(SeenModel(model="m", versions=versions, needed=needed or {}),))
    return plan_removals(seen, KeepPolicy(last=last))


@given(models(), st.integers(1, 5))
def test_nothing_that_is_needed_is_removed_and_all_is_accounted_for(
    model: SeenModel, last: int
) -> None:
    result = plan_removals(Seen(now=NOW, models=(model,)), KeepPolicy(last=last))

    gone = {each.version for each in result.removals if each.kind != "mark"}
    whole = sorted(each.version for each in model.versions if each.state in {"whole", "marked"})
    assert not gone & set(model.needed)
    assert not gone & set(whole[-last:])
    for each in model.versions:
        if each.state == "unknown" or (
            each.state == "unfinished" and NOW - each.written < timedelta(days=7)
        ):
            assert each.version not in gone
    said = [each.key for each in result.removals] + [each.key for each in result.kept]
    assert sorted(said) == sorted(each.key for each in model.versions)


def test_the_last_n_are_counted_among_whole_versions_alone() -> None:
    result = plan(version(1), version(2), version(3, "unfinished", days=1), last=1)

    assert [each.version for each in result.removals] == [1]
    assert [each.why for each in result.kept] == [
        "among the last 1",
        "unfinished, and written to within 7 days: its run may live",
    ]


def test_what_is_removed_says_why_and_how_much_it_gives_back() -> None:
    result = plan(version(1), version(2, "unfinished"), version(3, "half removed"), version(4))

    assert [(each.kind, each.why) for each in result.removals] == [
        ("release", "no alias, no hold, and not among the last 1"),
        ("number", "no manifest, and nothing written for 7 days"),
        ("release", "an earlier collection began to remove it"),
    ]
    assert result.size_bytes == 15


@pytest.mark.parametrize("state", ["marked", "half removed"])
def test_an_interrupted_removal_of_what_is_needed_by_now_is_taken_back(
    state: VersionState,
) -> None:
    result = plan(version(1, state), version(2), needed={1: "alias champion"})

    (removal,) = result.removals
    assert (removal.kind, removal.version, removal.size_bytes) == ("mark", 1, 0)
    assert removal.why == "an interrupted collection's mark is taken back: alias champion"


def test_a_half_removed_version_is_finished_however_young_it_is() -> None:
    result = plan(version(1, "half removed", days=0), version(2))

    assert [each.version for each in result.removals] == [1]


def test_a_model_with_a_document_that_cannot_be_read_is_left_alone() -> None:
    bad = SeenModel(model="m", versions=(version(1), version(2)), needed={}, unreadable="m: newer")
    good = SeenModel(model="n", versions=(version(1), version(2)), needed={})

    result = plan_removals(Seen(now=NOW, models=(bad, good)), KeepPolicy(last=1))

    assert [each.model for each in result.removals] == ["n"]
    assert result.refused == ("m: newer",)


@pytest.mark.parametrize(
    ("days", "gone"),
    [
        pytest.param(-3650, set(), id="future"),
        pytest.param(0, set(), id="now"),
        pytest.param(6, set(), id="6-days"),
        pytest.param(7, {"number", "work", "upload"}, id="7-days"),
        pytest.param(31, {"number", "work", "upload", "quarantine"}, id="31-days"),
    ],
)
def test_a_number_a_work_folder_and_an_upload_go_when_they_are_silent_long_enough(
    days: float, gone: set[str]
) -> None:
    written = NOW - timedelta(days=days)
    folder = SeenFolder(key="work/run/", objects=1, size_bytes=1, written=written)
    seen = Seen(
        now=NOW,
        models=(SeenModel(model="m", versions=(version(1, "unfinished", days),), needed={}),),
        quarantine=(folder.model_copy(update={"key": "quarantine/m/run/"}),),
        work=(folder,),
        uploads=(SeenUpload(key="m/2/big", id="u", begun=written),),
    )

    result = plan_removals(seen, KeepPolicy())

    assert {each.kind for each in result.removals} == gone
