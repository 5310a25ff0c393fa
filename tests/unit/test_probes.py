"""Probes: what they hold, and that pictures become what torchvision makes of them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.errors import ConfigurationError, SignatureMismatchError, VerificationError
from tasks.domain.recipe import Recipe
from tasks.domain.signature import ImagePreprocessing, InputSpec
from tasks.domain.value import Value
from tasks.isolation import Call, Family
from tasks.steps.answer import answer_probe
from tasks.steps.draw import as_declared, draw
from tasks.steps.pictures import preprocess
from tasks.steps.probes import ProbesRequest, make_probes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tasks.isolation import Children

IMAGENET = {"resize": 256, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def input_spec(dtype: str, domain: dict[str, Any], *dims: int | str) -> InputSpec:
    fields = {"name": "x", "dtype": dtype, "shape": ("batch", *dims), "domain": domain}
    return InputSpec.model_validate(fields)


def recipe(*inputs: dict[str, Any], **fields: Any) -> Recipe:
    training = {
        "kind": "train-sklearn",
        "dataset": "iris",
        "steps": [{"estimator": "sklearn.tree.DecisionTreeClassifier"}],
    }
    return Recipe.model_validate(
        {
            "name": "net",
            "description": "A net.",
            "licence": "none",
            "source": training,
            "signature": {
                "inputs": inputs or [numbers_input()],
                "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}],
            },
            **fields,
        }
    )


def numbers_input(name: str = "x", **fields: Any) -> dict[str, Any]:
    domain = {"kind": "range", "low": -2, "high": 8}
    return {"name": name, "dtype": "float32", "shape": ["batch", 4], "domain": domain, **fields}


def pictures_recipe(**preprocessing: Any) -> Recipe:
    file = {"uri": "file:///picture.png", "sha256": "0" * 64}
    return recipe(
        numbers_input(shape=["batch", 3, 224, 224], layout="NCHW"),
        preprocessing=IMAGENET | preprocessing,
        parity={"real": {"kind": "pictures", "files": [file]}},
    )


def probes_of(
    recipe_: Recipe, folder: Path, *pictures: Path, held_out: Path | None = None
) -> dict[str, dict[str, NDArray[np.generic]]]:
    folder.mkdir(exist_ok=True)
    request = ProbesRequest(recipe=recipe_, pictures=pictures, held_out=held_out, folder=folder)
    reply = make_probes(request)
    return {info.name: load_arrays(folder / f"{info.name}.npz") for info in reply.probes}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two photographs that ship with scikit-learn, one of them turned upright."""
    spec = find_spec("sklearn")
    assert spec
    assert spec.origin
    images = Path(spec.origin).parent / "datasets" / "images"
    upright = tmp_path_factory.mktemp("pictures") / "upright.png"
    with Image.open(images / "flower.jpg") as flower:
        flower.transpose(Image.Transpose.ROTATE_90).crop((0, 0, 401, 633)).save(upright)
    return images / "china.jpg", upright


# --- drawing ------------------------------------------------------------------------------

DTYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@given(st.sampled_from(DTYPES), st.data())
def test_whole_numbers_stay_in_their_domain(dtype: str, data: st.DataObject) -> None:
    info = np.iinfo(dtype)
    low = data.draw(st.integers(int(info.min), int(info.max) - 1))
    high = data.draw(st.integers(low + 1, int(info.max)))
    if float(low) >= float(high):
        return
    spec = input_spec(dtype, {"kind": "range", "low": low, "high": high}, 5)

    drawn = draw(spec, 3, np.random.default_rng(0))

    assert drawn.dtype == dtype
    assert drawn.shape == (3, 5)
    assert float(drawn.min()) >= float(low)
    assert float(drawn.max()) <= float(high)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_range_wider_than_the_dtype_still_gives_finite_numbers(dtype: str) -> None:
    spec = input_spec(dtype, {"kind": "range", "low": -1.7e308, "high": 1.7e308}, 50)

    drawn = draw(spec, 4, np.random.default_rng(0))

    assert drawn.dtype == dtype
    assert np.isfinite(drawn).all()
    assert len(np.unique(drawn)) > 150


def test_both_ends_of_a_range_of_whole_numbers_are_drawn() -> None:
    spec = input_spec("int32", {"kind": "range", "low": 0.5, "high": 2}, 40)

    assert set(draw(spec, 4, np.random.default_rng(0)).ravel().tolist()) == {1, 2}


def test_words_and_truths_are_drawn() -> None:
    words = input_spec("string", {"kind": "choice", "values": ["a", "bcd"]}, 9)
    truths = input_spec("bool", {"kind": "range", "low": 0, "high": 1}, 40)
    rng = np.random.default_rng(0)

    assert set(draw(words, 4, rng).ravel().tolist()) == {"a", "bcd"}
    assert set(draw(truths, 4, rng).ravel().tolist()) == {True, False}


def test_axes_of_one_name_get_one_size() -> None:
    domain = {"kind": "range", "low": 0, "high": 9}
    left, right = (input_spec(dtype, domain, "seq") for dtype in ("int64", "float32"))
    rng = np.random.default_rng(0)

    assert draw(left, 2, rng).shape == draw(right, 2, rng).shape


@pytest.mark.parametrize(
    ("dtype", "domain"),
    [
        ("int8", {"kind": "range", "low": 0, "high": 300}),
        ("uint8", {"kind": "range", "low": -1, "high": 3}),
        ("int32", {"kind": "range", "low": 0.2, "high": 0.8}),
        ("string", {"kind": "range", "low": 0, "high": 1}),
        ("string", {"kind": "choice", "values": [1, 2]}),
        ("float32", {"kind": "choice", "values": ["a"]}),
        ("int64", {"kind": "choice", "values": [1.5]}),
        ("float16", {"kind": "choice", "values": [1e9]}),
    ],
)
def test_a_domain_that_does_not_fit_the_dtype_is_refused(
    dtype: str, domain: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="input 'x'"):
        draw(input_spec(dtype, domain, 2), 2, np.random.default_rng(0))


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="values do not fit"):
        as_declared(input_spec("float32", {"kind": "range", "low": 0, "high": 1}), [[1], [1, 2]])


# --- probes -------------------------------------------------------------------------------


def test_probes_hold_random_rows_and_the_edges_of_the_domain(tmp_path: Path) -> None:
    probes = probes_of(recipe(parity={"random_rows": 5}), tmp_path)

    rows = {name: len(each["x"]) for name, each in probes.items()}
    assert rows == {
        "random": 5,
        "zeros": 1,
        "ones": 1,
        "lowest": 1,
        "highest": 1,
        "denormal": 1,
        "mixed-extremes": 2,
        "repeated-row": 3,
        "single-row": 1,
        "size-batch-3": 3,
        "size-batch-8": 8,
        "search": 16,
    }
    edges = {name: set(probes[name]["x"].ravel().tolist()) for name in probes}
    assert (edges["zeros"], edges["ones"]) == ({0}, {1})
    assert (edges["lowest"], edges["highest"]) == ({-2}, {8})
    assert edges["mixed-extremes"] == {-2, 8}
    assert edges["denormal"] == {float(np.finfo(np.float32).smallest_subnormal)}
    assert (probes["repeated-row"]["x"] == probes["random"]["x"][0]).all()


def test_edges_outside_the_domain_move_to_its_nearest_value(tmp_path: Path) -> None:
    low = numbers_input("low", domain={"kind": "range", "low": 3, "high": 9})
    some = numbers_input("some", dtype="int64", domain={"kind": "choice", "values": [7, -4, 2]})
    word = numbers_input("word", dtype="string", domain={"kind": "choice", "values": ["b", "a"]})

    probes = probes_of(recipe(low, some, word), tmp_path)

    assert {each["low"][0, 0] for each in (probes["zeros"], probes["lowest"])} == {3}
    assert (probes["zeros"]["some"][0, 0], probes["ones"]["some"][0, 0]) == (2, 2)
    assert (probes["lowest"]["word"][0, 0], probes["highest"]["word"][0, 0]) == ("a", "b")


def test_the_same_recipe_gives_the_same_rows(tmp_path: Path) -> None:
    one, two = (probes_of(recipe(), tmp_path / name) for name in ("one", "two"))
    other = probes_of(recipe(parity={"seed": 1}), tmp_path / "three")

    assert all((one[name]["x"] == two[name]["x"]).all() for name in one)
    assert (one["random"]["x"] != other["random"]["x"]).any()


def test_held_out_rows_are_cut_and_come_without_labels(tmp_path: Path) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "x": np.ones((9, 4), np.float32),
        "labels": np.arange(9),
    }
    save_arrays(tmp_path / "held_out.npz", arrays)
    wanted = recipe(parity={"real": {"kind": "held-out", "at_most": 6}})

    probes = probes_of(wanted, tmp_path / "probes", held_out=tmp_path / "held_out.npz")

    assert list(probes["held-out"]) == ["x"]
    assert len(probes["held-out"]["x"]) == 6


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (None, "kept none back"),
        ({"features": np.ones((2, 4), np.float32)}, "no array for input 'x'"),
        ({"x": np.ones((2, 5), np.float32)}, r"expected x float32\[batch, 4\]"),
        ({"x": np.ones((2, 4))}, r"got float64\[2, 4\]"),
        ({"x": np.ones((0, 4), np.float32)}, "at least one"),
    ],
)
def test_held_out_rows_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, NDArray[Any]] | None, words: str
) -> None:
    path = tmp_path / "held_out.npz" if arrays else None
    if arrays and path:
        save_arrays(path, arrays)

    with pytest.raises(ConfigurationError, match=words):
        probes_of(recipe(parity={"real": {"kind": "held-out"}}), tmp_path / "probes", held_out=path)


def test_rows_of_the_recipe_become_a_probe(tmp_path: Path) -> None:
    written = {"kind": "rows", "values": {"x": [[1, 2, 3, 4.5], [5, 6, 7, 8]]}}

    probes = probes_of(recipe(parity={"real": written}), tmp_path)

    assert probes["rows"]["x"].tolist() == [[1, 2, 3, 4.5], [5, 6, 7, 8]]
    assert probes["rows"]["x"].dtype == np.float32


def test_rows_must_name_every_input(tmp_path: Path) -> None:
    written = {"kind": "rows", "values": {"y": [[1, 2, 3, 4]]}}

    with pytest.raises(ConfigurationError, match="must name each input once"):
        probes_of(recipe(parity={"real": written}), tmp_path)


# --- pictures -----------------------------------------------------------------------------


class Expected(Value):
    pictures: tuple[Path, ...]
    interpolation: str
    path: Path


def torchvision_rows(request: Expected) -> Expected:
    """Preprocess the pictures as torchvision's own presets do; runs in the torch child."""
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    mode = InterpolationMode(request.interpolation)
    preset = ImageClassification(crop_size=224, resize_size=256, interpolation=mode)
    rows = []
    for path in request.pictures:
        with Image.open(path) as picture:
            rows.append(preset(picture.convert("RGB")))
    save_arrays(request.path, {"x": torch.stack(rows).numpy()})
    return request


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pictures_become_what_torchvision_makes_of_them(
    children: Children, tmp_path: Path, pictures: tuple[Path, ...], interpolation: str
) -> None:
    probes = probes_of(pictures_recipe(interpolation=interpolation), tmp_path / "probes", *pictures)
    path = tmp_path / "expected.npz"
    request = Expected(pictures=pictures, interpolation=interpolation, path=path)
    children.call(torchvision_rows, request, Call("test", "net", Family.TORCH))

    ours, theirs = (each["x"].astype(float) for each in (probes["pictures"], load_arrays(path)))

    # the pictures themselves come first, before parts of them
    ours = ours[: len(pictures)]
    # one step of a pixel is 1 / 255 / 0.229 = 0.017; this is float32 rounding alone
    assert np.abs(ours - theirs).max() < 1e-6
    assert theirs.std() > 0.5


def test_layout_channels_and_bytes_are_as_the_recipe_says(pictures: tuple[Path, ...]) -> None:
    domain = {"kind": "range", "low": 0, "high": 255}
    nchw = input_spec("float32", domain, 3, 60, 80).model_copy(update={"layout": "NCHW"})
    nhwc = input_spec("uint8", domain, 60, 80, 3).model_copy(update={"layout": "NHWC"})
    plain = ImagePreprocessing(scale=1)
    bgr = ImagePreprocessing(scale=1, channels="BGR", mean=(10, 20, 30))

    first = preprocess(pictures[0], nchw, (60, 80), plain)
    last = preprocess(pictures[0], nhwc, (60, 80), plain)
    turned = preprocess(pictures[0], nchw, (60, 80), bgr)

    assert last.shape == (60, 80, 3)
    assert last.dtype == np.uint8
    assert (first.transpose(1, 2, 0) == last).all()
    assert (turned[::-1] == first - np.reshape([10, 20, 30], (3, 1, 1))).all()


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>404</html>")

    with pytest.raises(ConfigurationError, match=r"page\.jpg: Pillow does not read"):
        probes_of(pictures_recipe(), tmp_path / "probes", tmp_path / "page.jpg")


def test_a_crop_larger_than_the_picture_is_refused(
    tmp_path: Path, pictures: tuple[Path, ...]
) -> None:
    with pytest.raises(ConfigurationError, match=r"resize \(200\) is smaller"):
        probes_of(pictures_recipe(resize=200), tmp_path / "probes", *pictures)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shape": ["batch", 1, 28, 28], "layout": "NCHW"}, "three channels"),
        ({"shape": ["batch", 3, 28, 28]}, "a layout"),
        ({}, "a layout"),
    ],
)
def test_an_input_that_takes_no_pictures_is_refused(
    tmp_path: Path, pictures: tuple[Path, ...], fields: dict[str, Any], words: str
) -> None:
    base = pictures_recipe()
    wrong = recipe(numbers_input(**fields), preprocessing=IMAGENET, parity=base.parity.model_dump())

    with pytest.raises(ConfigurationError, match=words):
        probes_of(wrong, tmp_path / "probes", *pictures)


# --- answering ----------------------------------------------------------------------------


class Doubler:
    """A runner in a few lines, to see what it is fed."""

    runtime = "doubler"

    def __init__(self, *, fails: bool = False, loses_rows: bool = False, name: str = "y") -> None:
        self.fails, self.loses_rows, self.name = fails, loses_rows, name
        self.batches: list[int] = []

    def signature(self) -> None:
        return None

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        if self.fails:
            message = "bad\nop"
            raise RuntimeError(message)
        self.batches.append(len(inputs["x"]))
        doubled = inputs["x"].reshape(len(inputs["x"]), -1).astype(np.float32) * 2
        return {self.name: doubled[:1] if self.loses_rows else doubled}


def test_large_rows_are_answered_in_small_batches_and_put_together() -> None:
    pictures = np.arange(20, dtype=np.float32).repeat(3 * 224 * 224).reshape(20, 3, 224, 224)
    runner = Doubler()

    answers = answer_probe(runner, {"x": pictures}, "net", recipe())

    assert runner.batches == [8, 8, 4]
    assert answers["y"][:, 0].tolist() == [2 * i for i in range(20)]


@pytest.mark.parametrize(
    ("runner", "kind", "words"),
    [
        (
            Doubler(fails=True),
            VerificationError,
            "doubler does not answer rows 0 to 2: RuntimeError: bad op",
        ),
        (Doubler(loses_rows=True), SignatureMismatchError, "expected 3, got shape"),
        (Doubler(name="z"), SignatureMismatchError, "expected y, got z"),
    ],
)
def test_what_a_runner_does_wrong_is_said(
    runner: Doubler, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        answer_probe(runner, {"x": np.ones((3, 4), np.float32)}, "net", recipe())
