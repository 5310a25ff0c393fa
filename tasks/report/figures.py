"""How figures are written: few digits, and units that people read."""

from __future__ import annotations

import math

_ENOUGH = 0.9995
_LEAST_PERCENT = 0.001
_MB = 1_000_000
_MINUTE = 60


def figure(value: float) -> str:
    """Write an error: two digits, as ``3.4e-06``; 0 as ``0``."""
    if value == 0:
        return "0"
    return "∞" if math.isinf(value) else f"{value:.1e}"


def cosine(value: float) -> str:
    """Write a cosine by its distance from 1, which is where the news is."""
    gap = 1 - value
    if gap == 0:
        return "1"
    return f"1 - {gap:.0e}" if value > _ENOUGH else f"{value:.4f}"


def share(budget: float) -> str:
    """Write a share of the tolerance: as a percentage within it, as a multiple beyond."""
    if math.isinf(budget):
        return "∞"
    if budget > 1:
        return f"{budget:,.1f}x" if budget < 10 else f"{budget:,.0f}x"  # noqa: PLR2004
    percent = 100 * budget
    if percent == 0:
        return "0"
    if percent < _LEAST_PERCENT:
        return f"< {_LEAST_PERCENT} %"
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"  # noqa: PLR2004


def seconds(value: float) -> str:
    """Write a duration, as ``0.8 s`` or ``3 min 20 s``."""
    if value < _MINUTE:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), _MINUTE)
    return f"{minutes} min {rest} s"


def size(size_bytes: int) -> str:
    """Write a size in MB (10^6 bytes), or in kB below 0.1 MB."""
    return (
        f"{size_bytes / _MB:,.1f} MB" if size_bytes >= _MB / 10 else f"{size_bytes / 1000:.1f} kB"
    )
