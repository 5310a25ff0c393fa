"""A release is held to the golden samples of the one before it."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

import yaml

from flows.release_model import release_model
from tasks.settings import local_settings, store_settings
from tasks.storage import publishing
from tasks.storage.s3 import open_store
from tests.flows.conftest import LINEAR

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tasks.domain.release import Manifest


def latest(model: str) -> Manifest:
    manifest = publishing.latest(open_store(store_settings()), model)
    assert manifest is not None
    return manifest


def rewrite(model: str, **changes: Any) -> None:
    path = local_settings().catalogue / f"{model}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def check_replayed(first: Manifest, second: Manifest) -> None:
    """Of other random rows the old ones come back; the edges need not be fetched."""
    golden = next(each for each in second.probes if each.name == "golden")
    assert (first.replay, first.formats[0].drift) == (None, None)
    assert "golden" not in {each.name for each in first.probes}
    assert golden.rows >= 8
    assert "version 1" in golden.about
    assert second.replay
    assert second.replay.version == 1
    assert second.replay.rows > golden.rows
    assert any(each.changed for each in second.replay.source)
    drift = second.formats[0].drift
    assert drift
    assert (drift.since, drift.last_size_bytes) == (1, first.formats[0].size_bytes)
    assert not [each for each in drift.errors if each.flagged]
    assert "golden/answers/golden.npz" in {each.path for each in second.files}


# one test, since each of its releases is the one before for the next
def test_each_release_is_held_to_the_golden_samples_of_the_one_before(
    catalogue: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    model = catalogue()
    release_model(model)
    first = latest(model)

    source = copy.deepcopy(LINEAR["source"])
    source["steps"][1]["params"]["C"] = 1e-3
    rewrite(model, source=source, parity=LINEAR["parity"] | {"seed": 7})
    with caplog.at_level(logging.WARNING):
        release_model(model)
    check_replayed(first, latest(model))
    assert "rows otherwise in 'probabilities'" in caplog.text

    signature = copy.deepcopy(LINEAR["signature"])
    signature["outputs"][1]["name"] = "chances"
    rewrite(model, signature=signature)
    release_model(model)
    replay = latest(model).replay
    assert replay
    assert (replay.rows, replay.notes) == (0, ("its signature is another one",))
