"""How often a catalogue run looks at the runs that it waits for."""

from __future__ import annotations

import pytest

from flows.model_runs import seconds_between_looks


@pytest.mark.parametrize("at_once", [1, 2, 40])
def test_a_few_runs_are_looked_at_each_two_seconds(at_once: int) -> None:
    assert seconds_between_looks(at_once) == 2


def test_many_runs_are_looked_at_no_more_than_twenty_times_a_second() -> None:
    assert seconds_between_looks(200) == 10
    assert all(many / seconds_between_looks(many) <= 20 for many in (41, 200, 5_000))
