"""The store dies while a real run publishes: the stage is tried again, and no reader sees half."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter

from deployments.s3_server import S3Server
from flows.release_model import release_model
from tasks import publish
from tasks.domain.errors import ArtifactNotFoundError
from tasks.progress import StageProgress
from tasks.storage import publishing
from tasks.storage.s3 import open_store
from tests.flows.conftest import forget_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tasks.domain.release import Manifest


@pytest.fixture
def frail_server(tmp_path: Path) -> Iterator[S3Server]:
    with S3Server(tmp_path / "s3", grace_seconds=0) as server:
        yield server


class KillsTheServer(StageProgress):
    """Once the first file is there, ends the server as a power cut would; it comes back later."""

    server: S3Server
    model: str
    seen: list[Manifest | None]
    back: threading.Timer | None = None

    def __call__(self, fraction: float, text: str = "") -> None:
        super().__call__(fraction, text)
        kind = type(self)
        if kind.back is None and fraction > 0.1:
            kind.server.stop()
            kind.back = threading.Timer(1.0, kind.come_back)
            kind.back.start()

    @classmethod
    def come_back(cls) -> None:
        cls.server.start()
        store = open_store(cls.server.settings)
        cls.seen.append(publishing.latest(store, cls.model))


def test_a_store_that_is_killed_in_mid_publish_gets_the_release_when_it_is_back(
    catalogue: Callable[..., str],
    frail_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in frail_server.environment().items():
        monkeypatch.setenv(name, value)
    model = catalogue()
    forget_settings()
    release_model(model)
    store = open_store(frail_server.settings)
    before = publishing.latest(store, model)
    KillsTheServer.server, KillsTheServer.model, KillsTheServer.seen = frail_server, model, []
    monkeypatch.setattr(publish, "StageProgress", KillsTheServer)

    published = release_model(model, force=True)

    assert KillsTheServer.back
    KillsTheServer.back.join()
    manifest = publishing.latest(store, model)
    assert manifest is not None
    assert manifest.version == published.version == 2
    assert {store.read(f"{model}/2/{file.path}").etag for file in manifest.files}
    # who read in between, saw the release before, or all of this one
    assert KillsTheServer.seen in ([before], [manifest])
    assert "Is it up?" in caplog.text
    assert "Trying again." in caplog.text
    with pytest.raises(ArtifactNotFoundError):
        publishing.read_release(store, model, 3)
    assert _tries(model, manifest) > 1


def _tries(model: str, manifest: Manifest) -> int:
    run = FlowRunFilter.model_validate({"id": {"any_": [manifest.flow_run]}})
    with get_client(sync_client=True) as client:
        found = {each.name: each.run_count for each in client.read_task_runs(flow_run_filter=run)}
    assert found[f"acquire {model}"] == 1
    return found[f"publish {model}"]
