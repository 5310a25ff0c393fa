"""What the stages of one run share: its store, its child processes, its folder, its retry rule."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff

from tasks.domain.artifact import StoredTree
from tasks.domain.errors import ConfigurationError, ReleaseError
from tasks.isolation import Children
from tasks.settings import local_settings, store_settings
from tasks.storage.s3 import ensure_usable, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from tasks.storage.store import ObjectStore

WORK = "work"
"""Where runs keep what is not released: ``work/<flow run>/…``, removed when a run has ended."""


class Workshop:
    """What one run has in its hands.

    Files pass between stages through the store, as ``StoredTree``s, so that a stage may run
    on another machine; where it runs on the same one, they never leave the disk.
    """

    def __init__(self, store: ObjectStore, children: Children, folder: Path, run: str) -> None:
        self.store = store
        self.children = children
        self.run = run
        self._folder = folder
        self._local: dict[str, Path] = {}

    @property
    def prefix(self) -> str:
        """The key prefix of this run's working files, with a slash at its end."""
        return f"{WORK}/{self.run}/"

    def new_folder(self, name: str) -> Path:
        """Return a new empty folder; it goes when the run ends."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))

    def keep(self, folder: Path, name: str) -> StoredTree:
        """Store the files below ``folder`` among this run's working files.

        Each call has a root of its own: a stage that is tried again may write other bytes.

        Raises:
            StorageError: The store did not take them.
        """
        root = f"{self.prefix}{name}-{uuid4().hex[:8]}"
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = (self.store.put(path, f"{root}/{path.relative_to(folder)}") for path in paths)
        tree = StoredTree(root=root, files=tuple(files))
        self._local[root] = folder
        return tree

    def fetch(self, tree: StoredTree) -> Path:
        """Return a folder with the files of ``tree``, from this disk or from the store.

        Raises:
            ArtifactNotFoundError: The store has lost one of them.
            DigestMismatchError: One of them is not what was recorded.
        """
        if tree.root not in self._local:
            folder = self.new_folder("fetched")
            for file in tree.files:
                self.store.get(file, folder / tree.path_of(file))
            self._local[tree.root] = folder
        return self._local[tree.root]


_open: dict[str, Workshop] = {}


@contextmanager
def open_workshop() -> Iterator[Workshop]:
    """Lend the stages of the current flow run their workshop, and clear it away at the end.

    Working files stay in the store when the run fails for a reason that another try may
    cure, and are removed otherwise.

    Raises:
        StorageError: The store cannot be used: down, bucket missing, credentials wrong, or
            no conditional writes.
    """
    run = str(flow_run.id or uuid4())
    store = open_store(store_settings())
    ensure_usable(store)
    folder = Path(tempfile.mkdtemp(prefix="conveyor-", dir=local_settings().scratch))
    try:
        with Children(folder) as children:
            shop = _open[run] = Workshop(store, children, folder, run)
            try:
                yield shop
            except ReleaseError as error:
                if not error.transient:
                    store.remove(shop.prefix)
                raise
            store.remove(shop.prefix)
    finally:
        _open.pop(run, None)
        shutil.rmtree(folder, ignore_errors=True)


def workshop() -> Workshop:
    """Return the workshop of the flow run that this is called in.

    Raises:
        ConfigurationError: It was called outside ``open_workshop``.
    """
    run = flow_run.id
    if run is None and len(_open) == 1:
        return next(iter(_open.values()))
    if run not in _open:
        message = f"flow run {run}: has no workshop. Call stages inside 'with open_workshop()'."
        raise ConfigurationError(message)
    return _open[run]


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Decide a retry by the error's own word, so that no stage keeps a list of its own."""
    try:
        state.result()
    except ReleaseError as error:
        if error.transient:
            get_run_logger().warning("%s Trying again.", error)
        return error.transient
    except Exception:  # noqa: BLE001 - a bug is not cured by another try
        return False
    return False


STAGE: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
    # The last resort: each child has its recipe's own, shorter limit.
    "timeout_seconds": 6 * 3600,
    "cache_policy": NO_CACHE,
}
"""What every stage's task has in common."""
