"""The two pages of a version: ``README.md`` and ``index.html``, files of the release like others.

They say nothing that changes from one try of a run to the next, such as the time: a retry must
bring the same bytes, or it would take a new number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.domain.domains import Image, Mask, OneHot, Tokens
from tasks.domain.signature import Choice, Range
from tasks.report.figures import figure, share, size
from tasks.report.since_last import since_last
from tasks.report.snippet import picture_size_of
from tasks.report.templates import template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.domain.artifact import VerifiedArtifact
    from tasks.domain.parity import ParityReport
    from tasks.domain.recipe import Recipe
    from tasks.domain.release import Release, ReleaseFile
    from tasks.domain.signature import ImagePreprocessing, InputSpec

README, INDEX = "README.md", "index.html"
_SAID_OF_SOURCE = ("model", "dataset", "network", "weights")


@dataclass(frozen=True)
class Extras:
    """What the pages show beside the release's own values."""

    snippet: str
    """The program to copy and run."""
    picture: str = ""
    """The graph as SVG; empty where it was not drawn."""


def release_pages(
    release: Release, version: int, files: Sequence[ReleaseFile], extras: Extras
) -> dict[str, str]:
    """Return both pages by their names.

    Args:
        release: What is published.
        version: Its number.
        files: Every other file of the release.
        extras: What else is shown.
    """
    view = _view(release, version, files, extras)
    return {
        README: template("release.md").render(view),
        INDEX: template("release.html").render(view),
    }


def _view(
    release: Release, version: int, files: Sequence[ReleaseFile], extras: Extras
) -> dict[str, Any]:
    recipe = release.source.recipe
    pictured = picture_size_of(recipe)
    return {
        "recipe": recipe,
        "version": version,
        "source": _source(recipe),
        "metrics": [(name, f"{value:.4g}") for name, value in release.source.metrics.items()],
        "tensors": _tensors(recipe),
        "steps": _steps(recipe.preprocessing, recipe.signature.inputs[0], pictured),
        "needs": "numpy onnxruntime pillow" if pictured else "numpy onnxruntime",
        "command": "python example.py picture.jpg" if pictured else "python example.py",
        "snippet": extras.snippet,
        "fence": _fence(extras.snippet),
        "formats": [
            *(_format(each.verified, each.parity, each.converter) for each in release.candidates),
            *(
                _format(each.verified, each.parity, f"{each.kind} of {each.parent.label}")
                for each in release.variants
                if each.released and each.verified and each.parity
            ),
        ],
        "reference": release.reference,
        "since_last": since_last(release),
        "picture": extras.picture,
        "files": [
            (each.path, size(each.size_bytes), each.sha256)
            for each in sorted(files, key=lambda file: file.path)
        ],
    }


def _source(recipe: Recipe) -> str:
    held = recipe.source.model_dump()
    said = [str(held[name]) for name in _SAID_OF_SOURCE if held.get(name)]
    return ", ".join([recipe.source_format.label, recipe.source.kind, *said])


def _tensors(recipe: Recipe) -> list[tuple[str, str, str, str, str]]:
    """Return direction, name, dtype, shape and meaning of each input and output."""
    inputs, outputs = recipe.signature.inputs, recipe.signature.outputs
    return [
        *(
            ("input", each.name, str(each.dtype), _shape(each.shape), _takes(each))
            for each in inputs
        ),
        *(
            ("output", each.name, str(each.dtype), _shape(each.shape), each.role)
            for each in outputs
        ),
    ]


def _shape(dims: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, dims))}]"


def _takes(spec: InputSpec) -> str:
    domain = _domain(spec)
    return f"{spec.layout}, {domain}" if spec.layout else domain


def _domain(spec: InputSpec) -> str:
    match spec.domain:
        case Range(low=low, high=high):
            return f"from {low:g} to {high:g}"
        case Choice(values=values):
            return "text" if spec.dtype == "string" else f"one of {len(values)} values"
        case Image():
            return "a picture's pixels, preprocessed"
        case Tokens(vocabulary=vocabulary, padding=padding):
            filled = "" if padding is None else f", padded with {padding}"
            return f"tokens from 0 to {vocabulary - 1}{filled}"
        case Mask(of=of):
            return f"1 where '{of}' has a token, else 0"
        case OneHot():
            return "zeros, and one 1 along the last axis"


def _steps(
    steps: ImagePreprocessing | None, spec: InputSpec, pictured: tuple[int, int] | None
) -> list[str]:
    """Say the preprocessing in words, step by step."""
    if steps is None or pictured is None:
        return []
    height, width = pictured
    how = f"with {steps.interpolation} interpolation"
    if steps.resize:
        fit = [
            f"resize the shorter side to {steps.resize} pixels, {how}",
            f"crop the middle, {width} wide and {height} high",
        ]
    else:
        fit = [f"resize the whole picture to {width} wide and {height} high, {how}"]
    order = {"NCHW": "channels, height, width", "NHWC": "height, width, channels"}
    return [
        "decode as RGB, 0 to 255",
        *fit,
        f"multiply by {steps.scale:.10g}",
        f"subtract {_numbers(steps.mean)}, divide by {_numbers(steps.std)} (red, green, blue)",
        *(["swap red and blue: the model takes BGR"] if steps.channels == "BGR" else []),
        f"lay out as {order.get(spec.layout or '', 'declared')} ({spec.layout}), {spec.dtype}",
    ]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{each:g}" for each in values)


def _format(verified: VerifiedArtifact, report: ParityReport, by: str) -> dict[str, str]:
    """Return one line of the parity table, and what the files are."""
    artifact = verified.artifact
    outputs = [each for probe in report.probes for each in probe.outputs]
    errors = [each.errors.max_abs for each in outputs if each.errors]
    ranks = [each.ranks for each in outputs if each.ranks]
    onnx = verified.onnx
    return {
        "label": f"{artifact.format.label} {artifact.variant}".strip(),
        "folder": artifact.folder,
        "size": size(artifact.tree.size_bytes),
        "about": ", ".join(
            f"{name} {number}" for name, number in (onnx.opsets if onnx else {}).items()
        ),
        "converter": by,
        "verdict": "equal" if report.passed else "differs",
        "rows": f"{sum(each.rows for each in report.probes)} of {len(report.probes)} probes",
        "max_abs": figure(max(errors)) if errors else "",
        "budget": share(report.budget),
        "top1": _agreement([(each.top1_equal, each.rows) for each in ranks]),
        "runtime": report.runtime,
    }


def _agreement(counts: Sequence[tuple[int, int]]) -> str:
    if not counts:
        return ""
    equal, rows = (sum(each) for each in zip(*counts, strict=True))
    return f"{equal}/{rows}"


def _fence(code: str) -> str:
    """Return a fence that nothing in the code can close."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    return "`" * max(3, longest + 1)
