"""Real rows on which a variant is calibrated, apart from those that judge it."""

from __future__ import annotations

from pathlib import Path

from pydantic import PositiveInt

from tasks.arrays import load_arrays, save_arrays
from tasks.domain.errors import ConfigurationError
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.domain.variant_rules import REAL_PROBES, plan_calibration

CALIBRATION = "calibration.npz"


class CalibrationRequest(Value):
    """Where real rows are."""

    recipe: Recipe
    rows: PositiveInt
    """How many are wanted, at most."""
    probes: Path
    """Folder of ``<probe>.npz``."""
    names: tuple[str, ...]
    """The probes that there are."""
    held_out: Path | None
    """What training kept back; its first rows are the probe ``held-out``."""
    folder: Path
    """Empty folder for ``calibration.npz``."""


class CalibrationReply(Value):
    """How the real rows were split."""

    judged: PositiveInt
    """How many of the real probe's rows, from its first, may judge."""
    words: str


def collect_calibration(request: CalibrationRequest) -> CalibrationReply:
    """Write the rows for calibration.

    Raises:
        ConfigurationError: No probe holds real rows.
    """
    real = next((name for name in request.names if name in REAL_PROBES), None)
    if real is None:
        message = (
            f"{request.recipe.name}: int8: no probe of real rows (got {', '.join(request.names)}). "
            "Name some under 'parity.real'."
        )
        raise ConfigurationError(message)
    probe = load_arrays(request.probes / f"{real}.npz")
    inputs = [spec.name for spec in request.recipe.signature.inputs]
    kept_back = load_arrays(request.held_out) if request.held_out and real == "held-out" else {}
    count = len(kept_back[inputs[0]]) if kept_back else 0
    plan = plan_calibration(request.rows, len(probe[inputs[0]]), count)
    source, rows = (kept_back, plan.spare) if plan.spare else (probe, plan.probe)
    save_arrays(request.folder / CALIBRATION, {name: source[name][rows] for name in inputs})
    return CalibrationReply(judged=plan.judged, words=plan.words)
