"""A run bears with a Prefect server that is away for a while, such as for its restart."""

from __future__ import annotations

from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient


class _OnceConnected:
    """Whether any client of this process has reached the server.

    Prefect's clients repeat a refused request for two minutes (seven tries, since the set's
    ``PREFECT_CLIENT_MAX_RETRIES`` is 6; by default for one minute), but only those that had an
    answer before; a client that is opened during an outage gives up at once. Each stage opens
    one, to ask for the concurrency limits of its tags, and an outage of seconds at that moment
    failed the whole run (seen on Prefect 3.8.8).
    """

    def __init__(self) -> None:
        self._connected = False

    def __get__(self, client: object, owner: type) -> bool:
        return self._connected

    def __set__(self, client: object, value: bool) -> None:  # noqa: FBT001 - it is a descriptor
        self._connected = self._connected or value


def bear_outages() -> None:
    """Let every client of this process repeat refused requests once one has reached the server."""
    once = _OnceConnected()
    for kind in (PrefectHttpxAsyncClient, PrefectHttpxSyncClient):
        kind._has_connected = once  # type: ignore[assignment]  # noqa: SLF001 - no setting for it
