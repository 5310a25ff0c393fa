"""From a picture to the tensor that a model was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.domain.errors import ConfigurationError
from tasks.domain.recipe import ImagePreprocessing, InputSpec, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

_CHANNELS = 3
_RANK = 4


def picture_rows(recipe: Recipe, pictures: tuple[Path, ...]) -> NDArray[Any]:
    """Return one row for each picture, of the shape, layout and dtype of the recipe's input.

    Raises:
        ConfigurationError: The recipe's input takes no pictures, or a file is none.
    """
    spec = recipe.signature.inputs[0]
    size = picture_size(recipe, spec)
    preprocessing = recipe.preprocessing or ImagePreprocessing()
    return np.stack([preprocess(each, spec, size, preprocessing) for each in pictures])


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
    pixels = np.asarray(_cropped(path, size, steps), np.float64) * steps.scale
    tensor = (pixels - steps.mean) / steps.std
    if steps.channels == "BGR":
        tensor = tensor[:, :, ::-1]
    if spec.layout == "NCHW":
        tensor = tensor.transpose(2, 0, 1)
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        tensor = np.clip(np.rint(tensor), limits.min, limits.max)
    return np.ascontiguousarray(tensor, dtype)


def _cropped(path: Path, size: tuple[int, int], steps: ImagePreprocessing) -> Image:
    from PIL import Image

    height, width = size
    method = Image.Resampling[steps.interpolation.upper()]
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigurationError(
            f"{path.name}: Pillow does not read it as a picture: {error!s:.200}. "
            "Check parity.real in the recipe."
        ) from error
    if steps.resize is None:
        return picture.resize((width, height), method)
    if steps.resize < max(size):
        raise ConfigurationError(
            f"{path.name}: preprocessing.resize ({steps.resize}) is smaller than the input "
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
    if channels != _CHANNELS or height is None or width is None:
        raise ConfigurationError(
            f"{recipe.name}: pictures need three channels and a known size (got {spec}). "
            "Write the size in signature.inputs, or preprocessing.resize."
        )
    return height, width
