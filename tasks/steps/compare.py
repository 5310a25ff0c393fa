"""Hold a candidate's answers against the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.arrays import load_arrays
from tasks.domain.artifact import ModelFormat
from tasks.domain.comparison import compare_probe, discriminating_outputs
from tasks.domain.errors import ParityError
from tasks.domain.parity import ParityReport
from tasks.domain.profiles import PROFILES
from tasks.domain.recipe import Recipe
from tasks.domain.release import ProbeInfo
from tasks.domain.value import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CompareRequest(Value):
    """Whose answers are compared with whose."""

    recipe: Recipe
    candidate: ModelFormat
    runtime: str
    """What ran the candidate."""
    probes: tuple[ProbeInfo, ...]
    reference: Path
    """Folder of the reference's answers, ``<probe>.npz`` each."""
    answers: Path
    """Folder of the candidate's, likewise."""


def compare(request: CompareRequest) -> ParityReport:
    """Compare the answers to every probe; a comparison that fails is a value, not an error.

    Raises:
        ParityError: One side's answers to a probe cannot be read.
    """
    outputs, profile = request.recipe.signature.outputs, request.recipe.parity.profile
    probes, discriminating = [], frozenset[str]()
    for info in request.probes:
        reference, answers = (
            _load(request, folder, info.name) for folder in (request.reference, request.answers)
        )
        probes.append(compare_probe(info.name, outputs, reference, answers, profile))
        discriminating |= discriminating_outputs(outputs, reference, profile)
    return ParityReport(
        reference=request.recipe.source_format,
        candidate=request.candidate,
        runtime=request.runtime,
        profile=profile,
        tolerance=PROFILES[profile].base,
        probes=tuple(probes),
        discriminates=bool(discriminating),
        constant_outputs=tuple(each.name for each in outputs if each.name not in discriminating),
    )


def _load(request: CompareRequest, folder: Path, probe: str) -> dict[str, NDArray[Any]]:
    try:
        return load_arrays(folder / f"{probe}.npz")
    except (OSError, ValueError) as error:
        raise ParityError(
            f"{request.recipe.name}: parity: the answers to probe '{probe}' cannot be read: "
            f"{error}. Run the release again."
        ) from error
