"""What the stages of one run share: its store, its child processes, its folder, its retry rule."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff

from tasks.domain.artifact import ModelFormat, StoredFile, StoredTree
from tasks.domain.errors import ConfigurationError, ReleaseError, StorageError
from tasks.isolation import Children, Family
from tasks.scratch import scratch_folder
from tasks.settings import local_settings, store_settings
from tasks.steps.frameworks import ImportRequest, import_frameworks
from tasks.storage.digest import sha256_of
from tasks.storage.keys import signing_key
from tasks.storage.places import WORK
from tasks.storage.s3 import open_store
from tasks.storage.usable import ensure_usable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from tasks.domain.recipe import Recipe
    from tasks.storage.store import ObjectStore


class Workshop:
    """What one run has in its hands.

    Files pass between stages as ``StoredTree``s, which name them by key and content. On the
    machine that wrote them they never leave its disk; ``share`` puts them into the store for a
    stage that runs on another one.
    """

    def __init__(
        self, store: ObjectStore, children: Children, folder: Path, run: str, *, lent: bool = False
    ) -> None:
        self.store = store
        self.children = children
        self.run = run
        self.lent = lent
        """Whether the run is another one's stage, whose files are that one's to clear away."""
        self._folder = folder
        self._local: dict[str, Path] = {}
        self._shared: set[str] = set()

    @property
    def prefix(self) -> str:
        """The key prefix of this run's working files, with a slash at its end."""
        return f"{WORK}/{self.run}/"

    @property
    def folder(self) -> Path:
        """The run's own folder, which goes when the run ends."""
        return self._folder

    def new_folder(self, name: str) -> Path:
        """Return a new empty folder; it goes when the run ends."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))

    def keep(self, folder: Path, name: str) -> StoredTree:
        """Name the files below ``folder`` as they are now, for later stages.

        Each call has a root of its own: a stage that is tried again may write other bytes.
        """
        root = f"{self.prefix}{name}-{uuid4().hex[:8]}"
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = tuple(
            StoredFile(
                key=f"{root}/{path.relative_to(folder)}",
                sha256=sha256_of(path),
                size_bytes=path.stat().st_size,
            )
            for path in paths
        )
        self._local[root] = folder
        return StoredTree(root=root, files=files)

    def share(self, tree: StoredTree) -> None:
        """Put a kept tree into the store, so that another machine's workshop can fetch it.

        What is there already, from here or from another machine, is not sent again.

        Raises:
            StorageError: The store did not take it.
        """
        if tree.root in self._shared:
            return
        folder = self._local[tree.root]
        for file in tree.files:
            self.store.put(folder / tree.path_of(file), file.key)
        self._shared.add(tree.root)

    def fetch(self, tree: StoredTree) -> Path:
        """Return a folder with the files of ``tree``, from this disk or from the store.

        Raises:
            ArtifactNotFoundError: The store does not have one of them.
            DigestMismatchError: One of them is not what was recorded.
        """
        if tree.root not in self._local:
            folder = self.new_folder("fetched")
            for file in tree.files:
                self.store.get(file, folder / tree.path_of(file))
            self._local[tree.root] = folder
        return self._local[tree.root]

    def adopt(self, *trees: StoredTree) -> None:
        """Take note that another machine has put ``trees``, if any, into this run's folder."""
        self._shared |= {self.prefix, *(tree.root for tree in trees)}

    def clear(self) -> None:
        """Remove from the store what was shared in this run's name, here or on its behalf.

        Where the store is away just now, ``collect-garbage`` does it later: how the run ends does
        not hang on it.
        """
        if not self._shared or self.lent:
            return
        try:
            self.store.remove(self.prefix)
        except StorageError as error:
            get_run_logger().warning("%s: is left in the store (%s)", self.prefix, error)
        self._shared.clear()


_open: dict[str, Workshop] = {}


@contextmanager
def open_workshop(owner: str | None = None) -> Iterator[Workshop]:
    """Lend the stages of the current flow run their workshop, and clear it away at the end.

    Args:
        owner: The flow run of which this one is a stage: its files go to that one's folder, and
            stay there.

    Raises:
        StorageError: The store cannot be used: down, bucket missing, credentials wrong, or
            no conditional writes.
        ConfigurationError: The signing key can be neither read nor made.
    """
    run = str(flow_run.id or uuid4())
    store = open_store(store_settings())
    ensure_usable(store)
    signing_key(local_settings())  # made now, or told now that it cannot be, not after hours
    with scratch_folder(local_settings().scratch) as folder, Children(folder) as children:
        shop = Workshop(store, children, folder, owner or run, lent=owner is not None)
        _open[run] = shop
        try:
            yield shop
        except Exception:
            shop.clear()
            raise
        else:
            shop.clear()
        finally:
            # where a signal ends the run, its finished stages wait for its next try
            _open.pop(run, None)


def prepare_children(recipe: Recipe) -> None:
    """Let the frameworks that convert and check ``recipe`` be imported while it is acquired.

    TensorFlow and onnx-tf take 4 to 6 s, in which their process needs one core.
    """
    children = workshop().children
    children.prepare(
        import_frameworks, ImportRequest(modules=("onnx", "onnxruntime")), Family.ONNXRUNTIME
    )
    if ModelFormat.SAVED_MODEL in recipe.targets:
        request = ImportRequest(modules=("tensorflow",), onnx_tf=True)
        children.prepare(import_frameworks, request, Family.TENSORFLOW_LEGACY)


def tag_run(recipe: Recipe) -> None:
    """Give the flow run the recipe's name and tags, by which people filter runs."""
    if flow_run.id is None:
        return
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(flow_run.id))
        tags = {*run.tags, recipe.name, *recipe.tags}
        client.update_flow_run(run.id, tags=sorted(tags))


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
