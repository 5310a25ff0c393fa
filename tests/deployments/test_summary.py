"""The demo's last table, for a run that published and for one that found nothing to do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, cast

import pytest
from rich.console import Console

from deployments import runs
from deployments.runs import ModelRun
from deployments.summary import summary
from tasks.standing import UP_TO_DATE
from tasks.storage.publishing import publish
from tasks.storage.s3 import open_store
from tests.support.publisher import manifest_maker, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.local import LocalStack
    from deployments.s3_server import S3Server


@dataclass
class Stack:
    """What the table asks of a local stack."""

    server: S3Server
    browser_url: str = ""
    bucket_url: str = "s3://models"
    ui_url: str = "http://127.0.0.1"

    def store_settings(self) -> dict[str, object]:
        return self.server.settings.model_dump()


@pytest.fixture
def model(s3_server: S3Server, tmp_path: Path) -> str:
    """Return the name of a model whose one version some earlier run has published."""
    name = f"model-{os.urandom(4).hex()}"
    files = write_files(tmp_path, {"onnx/model.onnx": b"onnx"})
    publish(open_store(s3_server.settings), name, files, manifest_maker(name), owner="earlier")
    return name


def shown(server: S3Server, run: ModelRun) -> str:
    console = Console(file=StringIO(), width=160)
    console.print(summary(cast("LocalStack", Stack(server)), [run]))
    return cast("StringIO", console.file).getvalue()


def test_a_run_that_was_up_to_date_says_so_and_where_the_release_lies(
    s3_server: S3Server, model: str
) -> None:
    text = shown(s3_server, ModelRun(model, run_id="later", state="Up to date"))

    assert "up to date, nothing was done" in text
    assert "scikit-learn" in text
    assert f"{model}/1/" in text
    assert "nothing published" not in text


def test_a_run_that_published_nothing_is_not_taken_for_an_earlier_one(
    s3_server: S3Server, model: str
) -> None:
    text = shown(s3_server, ModelRun(model, run_id="later", state="Failed"))

    assert "nothing published" in text
    assert "up to date" not in text


def test_the_state_has_one_name() -> None:
    assert runs.UP_TO_DATE == UP_TO_DATE
