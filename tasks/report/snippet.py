"""A program that people copy and run: it loads a published model, prepares an input, and asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.errors import ConfigurationError
from tasks.domain.recipe import Pictures

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.recipe import Recipe
    from tasks.domain.signature import ImagePreprocessing, InputSpec, OutputSpec

LABELS = "labels.txt"
"""The file of a release that names its classes, one a line."""
_PROBES = ("held-out", "rows", "random")
"""Where an example row comes from, the most telling first."""
_SMALL = 64
_SESSION = (
    'session = onnxruntime.InferenceSession("onnx/model.onnx", providers=["CPUExecutionProvider"])'
)
_PICTURE = """
def preprocess(path):
    picture = Image.open(path).convert("RGB")
{fit}
    pixels = np.asarray(picture, np.float64) * {scale!r}
    pixels = (pixels - {mean!r}) / {std!r}
{arrange}    return np.ascontiguousarray(pixels, "{dtype}")[np.newaxis]
"""
_CROP = """\
    short, long = {resize}, int({resize} * max(picture.size) / min(picture.size))
    wide = picture.width > picture.height
    picture = picture.resize((long, short) if wide else (short, long), Image.Resampling.{method})
    top, left = round((picture.height - {height}) / 2), round((picture.width - {width}) / 2)
    picture = picture.crop((left, top, left + {width}, top + {height}))"""
_SQUEEZE = "    picture = picture.resize(({width}, {height}), Image.Resampling.{method})"


def snippet(recipe: Recipe, golden: Path, *, labelled: bool) -> str:
    """Return the program; it is run in the release's folder.

    Args:
        recipe: What the model takes, and how a picture becomes that.
        golden: Folder of the probes' inputs, ``<probe>.npz`` each.
        labelled: Whether the release has a file ``LABELS``.
    """
    size = picture_size_of(recipe)
    pictured = recipe.preprocessing is not None and size is not None
    imports = ["import sys", ""] if pictured else []
    imports += ["import numpy as np", "import onnxruntime"]
    lines = [*imports, "from PIL import Image", ""] if pictured else [*imports, ""]
    if recipe.preprocessing and size:
        spec = recipe.signature.inputs[0]
        lines += [_preprocess(recipe.preprocessing, spec, size), ""]
        rows = f"inputs = {{{spec.name!r}: preprocess(sys.argv[1])}}  # a picture's path"
    else:
        rows = _rows(recipe, golden)
    lines += [
        _SESSION,
        rows,
        "names = [output.name for output in session.get_outputs()]",
        "answers = dict(zip(names, session.run(names, inputs)))",
    ]
    if labelled:
        lines.append(f'labels = open("{LABELS}", encoding="utf-8").read().splitlines()')
    for output in recipe.signature.outputs:
        lines += _print(output, labelled=labelled)
    return "\n".join([*lines, ""])


def picture_size_of(recipe: Recipe) -> tuple[int, int] | None:
    """Return height and width of the pictures that the model takes; None where it takes none."""
    from tasks.steps.pictures import picture_size

    if recipe.preprocessing is None:
        return None
    try:
        return picture_size(recipe, recipe.signature.inputs[0])
    except ConfigurationError:
        if isinstance(recipe.parity.real, Pictures):
            raise
        return None


def _preprocess(steps: ImagePreprocessing, spec: InputSpec, size: tuple[int, int]) -> str:
    height, width = size
    fit = (_CROP if steps.resize else _SQUEEZE).format(
        resize=steps.resize, method=steps.interpolation.upper(), height=height, width=width
    )
    arrange = ""
    if steps.channels == "BGR":
        arrange += "    pixels = pixels[:, :, ::-1]\n"
    if spec.layout == "NCHW":
        arrange += "    pixels = pixels.transpose(2, 0, 1)\n"
    if "int" in spec.dtype:
        limits = f'np.iinfo("{spec.dtype}")'
        arrange += f"    pixels = np.clip(np.rint(pixels), {limits}.min, {limits}.max)\n"
    return _PICTURE.format(
        fit=fit,
        scale=steps.scale,
        mean=list(steps.mean),
        std=list(steps.std),
        arrange=arrange,
        dtype=spec.dtype,
    )


def _rows(recipe: Recipe, golden: Path) -> str:
    """Return a line that makes one row: written out if it is short, or read from the samples."""
    from tasks.arrays import load_arrays

    probe = next(each for each in _PROBES if (golden / f"{each}.npz").is_file())
    arrays = load_arrays(golden / f"{probe}.npz")
    written = []
    for spec in recipe.signature.inputs:
        row = arrays[spec.name][:1]
        if spec.dtype == "string":
            value = f"np.array({row.tolist()!a}, dtype=object)"
        elif row.size <= _SMALL and abs(row).max() < float("inf"):
            short = row.astype(str).astype(float) if row.dtype.kind == "f" else row
            value = f'np.array({short.tolist()!r}, dtype="{spec.dtype}")'
        else:
            value = f'np.load("golden/inputs/{probe}.npz")[{spec.name!r}][:1]'
        written.append(f"    {spec.name!r}: {value},")
    return "\n".join(["inputs = {", *written, "}"])


def _print(spec: OutputSpec, *, labelled: bool) -> list[str]:
    flat = len(spec.shape) == 2  # noqa: PLR2004 - rows and classes
    if spec.role not in {"logits", "probabilities"} or not flat:
        return [f"print({spec.name!r}, answers[{spec.name!r}][0])"]
    named = "labels[index]" if labelled else "f'class {index}'"
    return [
        f"scores = answers[{spec.name!r}][0]",
        "for index in np.argsort(-scores, kind='stable')[:5]:",
        f"    print(f'{{scores[index]:12.6f}}', {named})",
    ]
