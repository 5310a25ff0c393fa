"""The searched rows: within their domains, the same in every process, and no more than asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.arrays import load_arrays
from tasks.domain.signature import Range
from tasks.fingerprint import fingerprint_of
from tasks.isolation import Call, Children, Family
from tasks.steps.probes import ProbesRequest, make_probes
from tasks.steps.search import SEARCH, search_probe, search_rows, specials
from tests.unit.test_inputs import IMAGENET, ONE_HOT, TOKENS, an_input, probes_of, recipe

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.domain.recipe import Recipe

RANGE = {"kind": "range", "low": -2, "high": 8}


def searched(wanted: Recipe) -> dict[str, NDArray[Any]]:
    found = search_probe(wanted)
    assert found is not None
    return found


def with_search(*inputs: dict[str, Any], seed: int = 0, search: int | None = 16) -> Recipe:
    return recipe(*inputs, parity={"seed": seed, "search": search}, preprocessing=IMAGENET)


seeds = given(st.integers(0, 2**31))
few = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.nested_given])


@few
@given(st.integers(0, 2**31), st.sampled_from(["float16", "float32", "float64"]), st.data())
def test_numbers_stay_in_their_range(seed: int, dtype: str, data: st.DataObject) -> None:
    low = data.draw(st.floats(-1e300, 1e300))
    high = data.draw(st.floats(-1e300, 1e300).filter(lambda each: each != low))
    low, high = sorted((low, high))
    biggest = float(np.finfo(dtype).max)
    if low >= biggest or high <= -biggest:
        return
    domain = {"kind": "range", "low": low, "high": high}

    rows = searched(with_search(an_input(domain, 3, 4, dtype=dtype), seed=seed))["x"]

    assert rows.dtype == dtype
    assert rows.shape[1:] == (3, 4)
    assert np.isfinite(rows).all()
    # an ordinary row's numbers are rounded to the dtype, as those of every random probe are
    rounded = np.array([max(low, -biggest), min(high, biggest)], dtype)
    assert rounded[0] <= rows.min()
    assert rows.max() <= rounded[1]


@few
@given(st.integers(0, 2**31), st.sampled_from(["int8", "uint8", "int64", "uint64"]), st.data())
def test_whole_numbers_stay_in_their_range(seed: int, dtype: str, data: st.DataObject) -> None:
    info = np.iinfo(dtype)
    ends = st.integers(max(int(info.min), -(2**53)), min(int(info.max), 2**53))
    low, high = sorted((data.draw(ends), data.draw(ends)))
    if low == high:
        return
    domain = {"kind": "range", "low": low, "high": high}

    rows = searched(with_search(an_input(domain, 9, dtype=dtype), seed=seed))["x"]

    assert rows.dtype == dtype
    assert low <= int(rows.min())
    assert int(rows.max()) <= high


@few
@seeds
def test_a_choice_holds_its_values_alone(seed: int) -> None:
    words = an_input({"kind": "choice", "values": ["a", "bcd"]}, 6, name="w", dtype="string")
    numbers = an_input({"kind": "choice", "values": [3, 5, 9]}, 40, name="n")

    rows = searched(with_search(words, numbers, seed=seed))

    assert set(rows["w"].ravel().tolist()) <= {"a", "bcd"}
    assert set(rows["n"].ravel().tolist()) <= {3, 5, 9}
    assert rows["n"].dtype == "float32"


@few
@seeds
@pytest.mark.parametrize(
    ("layout", "dims", "axes"),
    [("NCHW", (3, 6, 4), (0, 2, 3, 1)), ("NHWC", (6, 4, 3), (0, 1, 2, 3))],
)
def test_a_picture_is_one_of_whole_pixels(
    layout: str, dims: tuple[int, ...], axes: tuple[int, ...], seed: int
) -> None:
    wanted = with_search(an_input({"kind": "image"}, *dims, layout=layout), seed=seed)

    rows = searched(wanted)["x"].transpose(axes).astype(float)

    pixels = (rows * IMAGENET["std"] + IMAGENET["mean"]) * 255
    assert np.allclose(pixels, pixels.round(), atol=1e-3)
    assert pixels.min() > -0.1
    assert pixels.max() < 255.1


@few
@seeds
def test_tokens_are_padded_at_their_end_and_masked_there(seed: int) -> None:
    tokens = an_input(TOKENS, 12, name="ids", dtype="int64")
    mask = an_input({"kind": "mask", "of": "ids"}, 12, name="mask", dtype="int64")

    rows = searched(with_search(tokens, mask, seed=seed))

    ids = rows["ids"]
    assert ids.min() >= 0
    assert ids.max() < 30
    lengths = (ids != 0).sum(axis=1, keepdims=True)
    assert lengths.min() >= 1
    assert np.array_equal(ids != 0, np.arange(12) < lengths)
    assert np.array_equal(rows["mask"], (ids != 0).astype("int64"))


@few
@seeds
def test_a_one_hot_input_has_exactly_one_1(seed: int) -> None:
    rows = searched(with_search(an_input(ONE_HOT, 4, 5), seed=seed))["x"]

    assert set(rows.ravel().tolist()) == {0, 1}
    assert (rows.sum(axis=-1) == 1).all()


def test_special_values_hold_the_ends_and_their_neighbours() -> None:
    wanted = recipe(an_input(RANGE, 4))
    spec = wanted.signature.inputs[0]
    assert isinstance(spec.domain, Range)

    values = set(specials(spec).tolist())

    after = float(np.nextafter(np.float32(-2), np.float32(8)))
    assert {-2, 8, 0, 1, -1, 0.5, 3, after} <= values
    assert not {127, 65504} & values


# --- the probe ----------------------------------------------------------------------------


def test_the_same_recipe_gives_the_same_rows_in_every_process(tmp_path: Path) -> None:
    wanted = with_search(an_input(RANGE, 3, 5), an_input(ONE_HOT, 4, name="hot"), search=40)
    here = searched(wanted)

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        request = ProbesRequest(recipe=wanted, pictures=(), held_out=None, folder=tmp_path / name)
        # a fresh process each time; this one has loaded many more of our modules
        with Children(tmp_path / name) as fresh:
            fresh.call(make_probes, request, Call("probes", "net", Family.LIGHT))

    for name in ("one", "two"):
        there = load_arrays(tmp_path / name / f"{SEARCH}.npz")
        assert {key: each.tobytes() for key, each in there.items()} == {
            key: each.tobytes() for key, each in here.items()
        }


def test_another_seed_gives_other_rows() -> None:
    one, other = (searched(with_search(an_input(RANGE, 30), seed=seed))["x"] for seed in (0, 1))

    assert one.tobytes() != other.tobytes()


@pytest.mark.parametrize(
    ("dims", "search", "rows"),
    [((4,), None, 16), ((300, 300), None, 2), ((4,), 7, 7), ((300, 300), 3, 3)],
)
def test_the_budget_is_kept(dims: tuple[int, ...], search: int | None, rows: int) -> None:
    wanted = with_search(an_input(RANGE, *dims), search=search)

    assert search_rows(wanted) == rows
    assert len(searched(wanted)["x"]) == rows


def test_a_search_of_no_rows_is_off(tmp_path: Path) -> None:
    wanted = with_search(an_input(RANGE, 4), search=0)

    assert search_probe(wanted) is None
    assert SEARCH not in probes_of(wanted, tmp_path)


def test_no_other_probe_changes_with_the_search(tmp_path: Path) -> None:
    off, on = (
        probes_of(with_search(an_input(RANGE, 4), search=rows), tmp_path / str(rows))
        for rows in (0, 5)
    )

    assert list(on) == [*off, SEARCH]
    assert all(on[name]["x"].tobytes() == off[name]["x"].tobytes() for name in off)


def test_a_negative_number_of_rows_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        with_search(an_input(RANGE, 4), search=-1)


def test_hypothesis_is_in_the_fingerprint_where_it_searches() -> None:
    on, off = (
        fingerprint_of(recipe(an_input(RANGE, 4), parity={"search": rows})) for rows in (4, 0)
    )

    assert "tool hypothesis" in on.parts
    assert "tool hypothesis" not in off.parts
