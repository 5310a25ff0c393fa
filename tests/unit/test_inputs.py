"""Inputs that find bugs: declared domains, edges, the ends of free axes, enough real rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tasks.arrays import load_arrays
from tasks.domain.domains import AxisBounds
from tasks.domain.recipe import Recipe
from tasks.steps.answer import answer_probe
from tasks.steps.axes import usual_sizes
from tasks.steps.draw import draw_inputs
from tasks.steps.probes import ProbesRequest, make_probes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Inputs = dict[str, NDArray[Any]]

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
ONE_HOT = {"kind": "one-hot"}
TOKENS = {"kind": "tokens", "vocabulary": 30, "padding": 0}


def an_input(
    domain: dict[str, Any], *dims: int | str, name: str = "x", dtype: str = "float32", **more: Any
) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": ["batch", *dims], "domain": domain, **more}


def recipe(*inputs: dict[str, Any], axes: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "net",
            "description": "A net.",
            "licence": "none",
            "source": {"kind": "torchvision", "model": "resnet18"},
            "signature": {
                "inputs": inputs,
                "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}],
                "axes": axes or {},
            },
            **fields,
        }
    )


def probes_of(wanted: Recipe, folder: Path, *pictures: Path) -> dict[str, Inputs]:
    folder.mkdir(exist_ok=True)
    request = ProbesRequest(recipe=wanted, pictures=pictures, held_out=None, folder=folder)
    reply = make_probes(request)
    return {info.name: load_arrays(folder / f"{info.name}.npz") for info in reply.probes}


def drawn(wanted: Recipe, rows: int = 20) -> Inputs:
    return draw_inputs(wanted, rows, np.random.default_rng(0))


# --- domains ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "dims", "axes"),
    [("NCHW", (3, 6, 4), (0, 1, 2, 3)), ("NHWC", (6, 4, 3), (0, 3, 1, 2))],
)
def test_a_random_picture_is_one_of_whole_pixels_as_preprocessing_leaves_them(
    layout: str, dims: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    wanted = recipe(an_input({"kind": "image"}, *dims, layout=layout), preprocessing=IMAGENET)

    rows = drawn(wanted)["x"].transpose(axes).astype(float)

    mean, std = (np.reshape(IMAGENET[name], (1, 3, 1, 1)) for name in ("mean", "std"))
    pixels = (rows * std + mean) * 255
    assert np.abs(pixels - np.rint(pixels)).max() < 1e-4
    assert np.rint(pixels).min() >= 0
    assert np.rint(pixels).max() <= 255
    assert np.ptp(pixels) > 200


def test_the_ends_of_a_picture_are_black_and_white_channel_by_channel(tmp_path: Path) -> None:
    preprocessing = IMAGENET | {"channels": "BGR"}
    wanted = recipe(
        an_input({"kind": "image"}, 3, 6, 4, layout="NCHW"), preprocessing=preprocessing
    )

    probes = probes_of(wanted, tmp_path)

    black = [-0.406 / 0.225, -0.456 / 0.224, -0.485 / 0.229]
    white = [(1 - 0.406) / 0.225, (1 - 0.456) / 0.224, (1 - 0.485) / 0.229]
    for name, colour in (("lowest", black), ("highest", white)):
        assert probes[name]["x"][0, :, 5, 3].tolist() == pytest.approx(colour)
    mixed = probes["mixed-extremes"]["x"]
    for channel in range(3):
        assert sorted(set(mixed[:, channel].ravel().tolist())) == pytest.approx(
            [black[channel], white[channel]]
        )


def test_padding_follows_each_rows_last_token_and_its_mask_says_where() -> None:
    ids = an_input(TOKENS, 12, name="ids", dtype="int64")
    mask = an_input({"kind": "mask", "of": "ids"}, 12, name="mask", dtype="int64")

    rows = drawn(recipe(mask, ids))

    lengths = rows["mask"].sum(axis=1)
    assert (rows["mask"] == (rows["ids"] != 0)).all()
    assert (rows["mask"] == (np.arange(12) < lengths[:, None])).all()
    assert lengths.min() >= 1
    assert len(set(lengths.tolist())) > 3
    assert rows["ids"].max() < 30


def test_no_edge_of_tokens_is_padding_alone(tmp_path: Path) -> None:
    ids = an_input(TOKENS, 12, name="ids", dtype="int64")
    mask = an_input({"kind": "mask", "of": "ids"}, 12, name="mask", dtype="float32")

    probes = probes_of(recipe(ids, mask), tmp_path)

    assert {name: int(probes[name]["ids"][0, 0]) for name in ("zeros", "lowest", "highest")} == {
        "zeros": 1, "lowest": 1, "highest": 29,
    }  # fmt: skip
    assert all((each["mask"] == (each["ids"] != 0)).all() for each in probes.values())
    assert "denormal" not in probes


def test_every_row_of_a_one_hot_input_is_one_hot(tmp_path: Path) -> None:
    probes = probes_of(recipe(an_input({"kind": "one-hot"}, 4, 5)), tmp_path)

    for each in probes.values():
        assert set(each["x"].ravel().tolist()) == {0, 1}
        assert (each["x"].sum(axis=-1) == 1).all()
    assert {"zeros", "ones", "denormal"}.isdisjoint(probes)


@pytest.mark.parametrize(
    ("inputs", "fields", "words"),
    [
        ([an_input({"kind": "image"}, 3, 8, 8, layout="NCHW")], {}, "'preprocessing'"),
        ([an_input(TOKENS, 8)], {}, "integer dtype"),
        ([an_input({"kind": "mask", "of": "y"}, 8)], {}, "whose domain is 'tokens'"),
        ([an_input({"kind": "one-hot"}, "classes")], {}, "known size"),
        (
            [an_input({"kind": "one-hot"}, 4)],
            {"axes": {"length": {"min": 1, "max": 2}}},
            "no input",
        ),
        ([an_input({"kind": "one-hot"}, 4)], {"axes": {"batch": {"min": 1, "max": 4}}}, "to 8"),
    ],
)
def test_a_domain_that_does_not_fit_is_refused_by_the_field(
    inputs: list[dict[str, Any]], fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        recipe(*inputs, **fields)


# --- edges --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "denormal", "large"),
    [
        (-float("inf"), float("inf"), {1.401298464324817e-45}, {-1e4, 1e4}),
        (-5, 0, {-1.401298464324817e-45}, None),
        (0, 1e6, {1.401298464324817e-45}, {1e4}),
        (0.01, 1e4, None, None),
    ],
)
def test_denormal_and_very_large_rows_are_those_that_the_domain_allows(
    tmp_path: Path, low: float, high: float, denormal: set[float] | None, large: set[float] | None
) -> None:
    wanted = recipe(an_input({"kind": "range", "low": low, "high": high}, 40))

    probes = probes_of(wanted, tmp_path)

    for name, values in (("denormal", denormal), ("very-large", large)):
        got = set(probes[name]["x"].ravel().tolist()) if name in probes else None
        assert got == values


# --- axes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "sizes"),
    [
        ({"min": 1, "max": 128}, (1, 65, 128)),
        ({"min": 2, "max": 4}, (2, 3, 4)),
        ({"min": 32, "max": 160, "multiple_of": 32}, (32, 96, 160)),
        ({"min": 7, "max": 7}, (7,)),
    ],
)
def test_an_axis_is_taken_to_its_smallest_an_odd_and_its_largest_size(
    bounds: dict[str, int], sizes: tuple[int, ...]
) -> None:
    assert AxisBounds.model_validate(bounds).sizes == sizes


def test_each_axis_is_moved_alone_and_shared_by_the_inputs_that_have_it(tmp_path: Path) -> None:
    tokens = {"kind": "tokens", "vocabulary": 9}
    inputs = [
        an_input(tokens, "length", name="ids", dtype="int64"),
        an_input({"kind": "range", "low": 0, "high": 1}, "length", "depth", name="values"),
    ]
    axes = {"length": {"min": 1, "max": 128}, "batch": {"min": 1, "max": 16}}

    probes = probes_of(recipe(*inputs, axes=axes), tmp_path)

    shapes = {name: each["values"].shape for name, each in probes.items() if "size-" in name}
    assert shapes == {
        "size-batch-3": (3, 65, 16),
        "size-batch-16": (16, 65, 16),
        "size-length-1": (2, 1, 16),
        "size-length-128": (2, 128, 16),
    }
    assert all(each["ids"].shape == each["values"].shape[:2] for each in probes.values())


def test_a_free_picture_is_never_square() -> None:
    bounds = {"min": 32, "max": 96}
    image = an_input({"kind": "image"}, 3, "height", "width", layout="NCHW")

    free = recipe(image, preprocessing=IMAGENET)
    bound = recipe(image, preprocessing=IMAGENET, axes={"height": bounds, "width": bounds})

    assert usual_sizes(free) == {"height": 64, "width": 48}
    assert usual_sizes(bound)["height"] != usual_sizes(bound)["width"]


class Batches:
    """A runner that notes how many rows it got at once."""

    runtime = "none"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def signature(self) -> None:
        return None

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Inputs:
        self.seen.append(len(inputs["x"]))
        return {"y": np.zeros((len(inputs["x"]), 3), np.float32)}


def test_a_probe_of_a_batch_size_goes_to_the_model_in_one_batch() -> None:
    wanted, runner = recipe(an_input({"kind": "range", "low": 0, "high": 1}, 200_000)), Batches()
    inputs = drawn(wanted, 16)

    answer_probe(runner, inputs, "net", wanted)
    answer_probe(runner, inputs, "net", wanted, whole=True)

    assert runner.seen == [6, 6, 4, 16]


# --- real rows ----------------------------------------------------------------------------


def test_few_pictures_become_32_rows_that_all_differ(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(12, 16, 3), dtype=np.uint8)
    for number in range(3):
        picture = Image.fromarray(np.roll(pixels, number, axis=2)).resize((80, 60))
        picture.save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(3)]
    pinned = [{"uri": each.as_uri(), "sha256": "0" * 64} for each in files]
    wanted = recipe(
        an_input({"kind": "image"}, 3, 24, 32, layout="NCHW"),
        preprocessing=IMAGENET,
        parity={"real": {"kind": "pictures", "files": pinned}},
    )

    one, two = (probes_of(wanted, tmp_path / name, *files)["pictures"]["x"] for name in "ab")

    assert one.shape == (32, 3, 24, 32)
    assert (one == two).all()
    assert len({each.tobytes() for each in one}) == 32
    assert (one[3] == one[0][:, :, ::-1]).all()
