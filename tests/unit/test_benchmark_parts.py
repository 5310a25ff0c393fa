"""The parts of the benchmarks of many machines that need no machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.machines import ratios, used, write_catalogue
from benchmarks.server_growth import Size, grown
from tasks.catalogue import load_catalogue

if TYPE_CHECKING:
    from pathlib import Path


def test_the_recipes_of_the_benchmark_are_valid_and_differ(tmp_path: Path) -> None:
    names = write_catalogue(tmp_path, 5, timeout=7)

    recipes = load_catalogue(tmp_path)

    assert [each.name for each in recipes] == names
    assert {each.limits.timeout_seconds for each in recipes} == {7}
    assert len({each.source.model_dump_json() for each in recipes}) == 5


def test_a_process_that_was_there_before_counts_from_then_and_a_new_one_whole() -> None:
    begun = {(1, 0.0): 10.0, (2, 0.0): 5.0}
    last = {(1, 0.0): 12.0, (2, 0.0): 5.0, (3, 1.0): 4.0, (2, 9.0): 1.0}

    assert used(begun, last) == 7.0


def test_growth_is_scaled_to_a_thousand_runs_and_rates_to_the_first() -> None:
    before, after = Size(10, 200, 0, 5, 1), Size(12, 201, 30, 55, 21)

    assert grown(before, after, 10) == Size(200, 100, 3_000, 5_000, 2_000)
    assert ratios([50.0, 75.0]) == [1.0, 1.5]
