"""What each comparison is called in a report: by its format, its try, and its device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.domain.parity import ParityReport


def titled(reports: Sequence[ParityReport]) -> tuple[tuple[str, ParityReport], ...]:
    """Return every comparison by itself with its name, that on CUDA after that on the CPU.

    A format that was tried again has its comparisons numbered.
    """
    formats = [each.candidate for each in reports]
    pairs = []
    for i, (format_, report) in enumerate(zip(formats, reports, strict=True)):
        again = f", try {formats[: i + 1].count(format_)}" if formats.count(format_) > 1 else ""
        title = f"{format_.label}{again}"
        pairs.append((title, report.model_copy(update={"on_cuda": None})))
        if report.on_cuda:
            pairs.append((f"{title} on CUDA", report.on_cuda))
    return tuple(pairs)
