"""Progress of long stages, shown by Prefect while they run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prefect.artifacts import create_progress_artifact, update_progress_artifact

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

_SECONDS_BETWEEN_UPDATES = 1.0


class StageProgress:
    """A progress bar on the stage's page; made at the first word of progress, if any comes.

    Updates are at least a second apart, since each is a request to the server.
    """

    def __init__(self, description: str) -> None:
        self._description = description
        self._artifact: UUID | None = None
        self._updated = time.monotonic()

    def __call__(self, fraction: float, text: str = "") -> None:
        """Show ``fraction`` (0 to 1) done, with ``text`` on what is being done."""
        now = time.monotonic()
        if now - self._updated < _SECONDS_BETWEEN_UPDATES and fraction < 1:
            return
        self._updated = now
        if self._artifact is None:
            if fraction < 1:
                self._artifact = self._create(fraction, text)
            return
        update_progress_artifact(self._artifact, progress=100 * fraction)

    def finish(self) -> None:
        """Show that the stage is done, whatever it told last; nothing if it told nothing."""
        self(1.0)

    def _create(self, fraction: float, text: str) -> UUID:
        described = f"{self._description}: {text}" if text else self._description
        artifact = create_progress_artifact(progress=100 * fraction, description=described)
        assert artifact is not None  # noqa: S101 - it names an id, sync or not
        return artifact  # type: ignore[return-value]

    def of_bytes(self) -> Callable[[int, int | None], None]:
        """Return a listener for ``(bytes done, bytes in all or None)``."""

        def show(done: int, total: int | None) -> None:
            if total:
                self(done / total, f"{total / 1e6:,.0f} MB")

        return show
