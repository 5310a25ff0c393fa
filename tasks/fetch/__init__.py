"""Downloads: bytes from elsewhere, held to the digest that the recipe pins, kept for next time.

Everything here runs in the parent process and opens nothing of what it fetches but archives.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tasks.domain.errors import ConfigurationError
from tasks.fetch.cache import kept
from tasks.fetch.transfer import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.domain.sources import Download

    Progress = Callable[[int, int | None], None]


_MODULES = {
    "https": "over_http",
    "http": "over_http",
    "s3": "from_s3",
    "file": "from_file",
    "pypi": "from_pypi",
}
"""The module of each scheme; imported when it is asked for, since boto3 and others take long."""


def fetch(download: Download, cache: Path, on_progress: Progress | None = None) -> Path:
    """Return a file or folder of this disk whose digest is the download's.

    What is in the cache is hashed again and used; nothing else is asked then. Otherwise one
    process downloads, and others that want the same digest wait for it.

    Args:
        download: Where the bytes are, and their digest.
        cache: Folder of checked downloads, shared by processes.
        on_progress: Called now and then with the bytes that are here and the bytes in all
            (None where the server does not say).

    Returns:
        ``<cache>/sha256/<first two digits>/<digest>``, or ``<cache>/md5/…``; to be read only. The
        name has no ending: link to it under another name where a library looks at the ending.

    Raises:
        DownloadDigestError: Other bytes came; nothing of them is kept.
        AcquisitionError: Nothing came; the message says why, and what to do.
        ConfigurationError: The uri is not one.
    """

    def bring(part: Path) -> None:
        _bring(Wanted(download.uri, download.digest, part, cache, on_progress))

    return kept(cache, download.digest, download.uri, bring)


def _bring(wanted: Wanted) -> None:
    """Let the module of the uri's scheme bring it to ``wanted.part``."""
    scheme = wanted.uri.partition(":")[0]
    if scheme not in _MODULES:
        message = (
            f"{wanted.uri}: cannot fetch by '{scheme}:' (expected one of {', '.join(_MODULES)})."
        )
        raise ConfigurationError(message)
    module = importlib.import_module(f"tasks.fetch.{_MODULES[scheme]}")
    module.download(wanted)
