"""From a picture to the tensor that a model was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.domain.domains import Image as PixelDomain
from tasks.domain.errors import ConfigurationError
from tasks.domain.recipe import Recipe
from tasks.domain.signature import ImagePreprocessing, InputSpec, Range

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

_CHANNELS = 3
_RANK = 4

LEAST_REAL = 32
"""Rows of real data that a comparison should have."""

_PLACES = ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
_SHARES = (0.8, 0.6, 0.7, 0.9)


def picture_rows(recipe: Recipe, pictures: tuple[Path, ...]) -> NDArray[Any]:
    """Return rows of the shape, layout and dtype of the recipe's input, at least ``LEAST_REAL``.

    The first rows are the pictures as they are, in the recipe's order. Where they are too few,
    parts and mirror images of each follow, always the same ones, through the same preprocessing.

    Raises:
        ConfigurationError: The recipe's input takes no pictures, or a file is none.
    """
    spec = recipe.signature.inputs[0]
    size = picture_size(recipe, spec)
    steps = recipe.preprocessing or ImagePreprocessing()
    views = _views_of(len(pictures))
    rows: dict[tuple[int, int], NDArray[Any]] = {}
    for number, path in enumerate(pictures):
        picture = _opened(path)
        for view in range(views):
            part = _view(picture, view)
            rows[view, number] = _row(_cropped(part, path.name, size, steps), spec, steps)
    enough = sorted(rows)[: max(LEAST_REAL, len(pictures))]
    return np.stack([rows[key] for key in enough])


def _views_of(pictures: int) -> int:
    """Return how many views of each picture there are."""
    return -(-LEAST_REAL // pictures)


def preprocess(
    path: Path, spec: InputSpec, size: tuple[int, int], steps: ImagePreprocessing
) -> NDArray[Any]:
    """Turn one picture into one row, by the steps that ``ImagePreprocessing`` lists.

    Sizes and crops are rounded as ``torchvision.transforms.functional`` (0.29) rounds them:
    ``_compute_resized_output_size`` and ``center_crop``.

    Args:
        path: A picture in any format that Pillow reads.
        spec: The input; its layout and dtype are the row's.
        size: Height and width of the row, in pixels.
        steps: What is done.

    Raises:
        ConfigurationError: The file is no picture, or smaller than what is cropped.
    """
    return _row(_cropped(_opened(path), path.name, size, steps), spec, steps)


def normalised(
    spec: InputSpec, pixels: NDArray[Any], steps: ImagePreprocessing | None
) -> NDArray[Any]:
    """Turn pixels (RGB, channels last, after any further axes) into what the input takes."""
    steps = steps or ImagePreprocessing()
    tensor = (np.asarray(pixels, np.float64) * steps.scale - steps.mean) / steps.std
    if steps.channels == "BGR":
        tensor = tensor[..., ::-1]
    if spec.layout == "NCHW":
        tensor = np.moveaxis(tensor, -1, -3)
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        tensor = np.clip(np.rint(tensor), limits.min, limits.max)
    return np.ascontiguousarray(tensor, dtype)


def value_bounds(recipe: Recipe, spec: InputSpec) -> tuple[float, float] | None:
    """Return the lowest and highest number of a range or of a picture; None for other domains."""
    match spec.domain:
        case Range(low=low, high=high):
            return low, high
        case PixelDomain():
            steps = recipe.preprocessing or ImagePreprocessing()
            ends = (np.reshape([[0.0], [255.0]], (2, 1)) * steps.scale - steps.mean) / steps.std
            return float(ends.min()), float(ends.max())
        case _:
            return None


def _row(picture: Image, spec: InputSpec, steps: ImagePreprocessing) -> NDArray[Any]:
    return normalised(spec, np.asarray(picture), steps)


def _opened(path: Path) -> Image:
    from PIL import Image

    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigurationError(
            f"{path.name}: Pillow does not read it as a picture: {error!s:.200}. "
            "Check parity.real in the recipe."
        ) from error


def _view(picture: Image, number: int) -> Image:
    """Return a part of a picture, each other one mirrored; number 0 is the picture itself."""
    if not number:
        return picture
    if number > 1:
        place, share = (number // 2 - 1) % len(_PLACES), _SHARES[(number - 2) // 10 % len(_SHARES)]
        width, height = (max(1, round(each * share)) for each in picture.size)
        left = round((picture.width - width) * _PLACES[place][0])
        top = round((picture.height - height) * _PLACES[place][1])
        picture = picture.crop((left, top, left + width, top + height))
    if number % 2:
        from PIL import Image

        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture


def _cropped(picture: Image, name: str, size: tuple[int, int], steps: ImagePreprocessing) -> Image:
    from PIL import Image

    height, width = size
    method = Image.Resampling[steps.interpolation.upper()]
    if steps.resize is None:
        return picture.resize((width, height), method)
    if steps.resize < max(size):
        raise ConfigurationError(
            f"{name}: preprocessing.resize ({steps.resize}) is smaller than the input "
            f"({height} x {width}). Change it in the recipe."
        )
    short, long = steps.resize, int(steps.resize * max(picture.size) / min(picture.size))
    wide = picture.width > picture.height
    picture = picture.resize((long, short) if wide else (short, long), method)
    top = round((picture.height - height) / 2.0)
    left = round((picture.width - width) / 2.0)
    return picture.crop((left, top, left + width, top + height))


def picture_size(recipe: Recipe, spec: InputSpec) -> tuple[int, int]:
    """Return height and width that the input takes; a free size is that of the resized middle."""
    free = recipe.preprocessing.resize if recipe.preprocessing else None
    if len(recipe.signature.inputs) > 1 or spec.layout is None or len(spec.shape) != _RANK:
        raise ConfigurationError(
            f"{recipe.name}: pictures need one input with four axes and a layout (got {spec}). "
            "Use 'held-out' or 'rows' for parity.real."
        )
    channels, *sides = (
        spec.shape[1:] if spec.layout == "NCHW" else (spec.shape[3], *spec.shape[1:3])
    )
    height, width = (free if isinstance(side, str) else side for side in sides)
    if free and all(isinstance(side, str) for side in sides):
        width = free * 3 // 4  # a square picture hides that height and width were exchanged
    if channels != _CHANNELS or height is None or width is None:
        raise ConfigurationError(
            f"{recipe.name}: pictures need three channels and a known size (got {spec}). "
            "Write the size in signature.inputs, or preprocessing.resize."
        )
    return height, width
