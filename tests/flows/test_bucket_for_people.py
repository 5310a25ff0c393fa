"""What people find after a real run: pages, types, a program that runs, links that open."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.release_model import release_model
from tasks.arrays import load_arrays
from tasks.domain.errors import StorageUnavailableError
from tasks.settings import local_settings, store_settings
from tasks.storage import publishing
from tasks.storage.s3 import S3Store, open_store
from tests.flows.conftest import forget_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tasks.domain.release import Published

ROOT = Path(__file__).resolve().parents[2]
TYPES = {
    ".sig": "application/json",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".npz": "application/octet-stream",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def store() -> S3Store:
    return open_store(store_settings())


def artifact_of(model: str) -> str:
    """Return what Prefect shows under the release's key."""

    async def read() -> str:
        mine = ArtifactFilter(key=ArtifactFilterKey(any_=[f"release-{model}"]))
        async with get_client() as client:
            (found,) = await client.read_artifacts(artifact_filter=mine)
            return str(found.data)

    return asyncio.run(read())


def links_in(text: str) -> dict[str, str]:
    return {
        name.replace("\\", ""): url for name, url in re.findall(r"\| \[(.+?)\]\((http.+?)\)", text)
    }


def catalogued(name: str) -> str:
    """Put a recipe of the real catalogue into the test's own, for ONNX alone."""
    model = f"{name}-{uuid4().hex[:8]}"
    text = (ROOT / "models" / f"{name}.yaml").read_text()
    text = re.sub(r"^targets: .*$", "targets: [onnx]", text, flags=re.MULTILINE)
    text = text.replace(f"name: {name}\n", f"name: {model}\n")
    (local_settings().catalogue / f"{model}.yaml").write_text(text)
    return model


def download(published: Published, folder: Path) -> Path:
    prefix = published.manifest.key.removesuffix("manifest.json")
    for key in store().keys(prefix):
        target = folder / key.removeprefix(prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store().read(key).content)
    return folder


def run_readme(folder: Path, *arguments: str) -> list[tuple[float, str]]:
    """Run the program of a published README in the release's folder; return scores and labels."""
    (program,) = re.findall(
        r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (folder / "example.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "example.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^ *(-?[0-9.]+) (.+)$", done.stdout, re.MULTILINE)
    return [(float(score), label) for score, label in found]


def best_five(folder: Path, scores: NDArray[np.generic]) -> list[tuple[float, str]]:
    labels = (folder / "labels.txt").read_text().splitlines()
    row = np.asarray(scores, np.float64)
    return [(float(row[i]), labels[i]) for i in np.argsort(-row, kind="stable")[:5]]


def test_every_object_of_a_release_has_the_right_type(catalogue: Callable[..., str]) -> None:
    model = catalogue(labels=["one", "two", "three"])

    release_model(model)

    keys = [*store().keys(f"{model}/"), "README.md", "index.html"]
    kinds = {
        key: store().client.head_object(Bucket=store().bucket, Key=key)["ContentType"]
        for key in keys
    }
    assert kinds == {key: TYPES[Path(key).suffix] for key in keys}
    assert {Path(key).suffix for key in keys} == set(TYPES)


def test_a_saved_models_files_are_plain_bytes(catalogue: Callable[..., str]) -> None:
    catalogue()
    for name in ("saved_model.pb", "variables/variables.index", "model.onnx.data"):
        path = local_settings().catalogue / Path(name).name
        path.write_bytes(b"x")
        key = f"{uuid4().hex}/{name}"

        store().put(path, key)

        head = store().client.head_object(Bucket=store().bucket, Key=key)
        assert head["ContentType"] == "application/octet-stream"


@pytest.mark.usefixtures("catalogue")
def test_the_readmes_program_answers_a_row_as_the_golden_answers_do(tmp_path: Path) -> None:
    folder = download(release_model(catalogued("iris-random-forest")), tmp_path)

    found = run_readme(folder)

    golden = load_arrays(folder / "golden" / "answers" / "held-out.npz")["probabilities"][0]
    expected = best_five(folder, golden)
    assert len(found) == 3
    assert [label for _, label in found] == [label for _, label in expected]
    np.testing.assert_allclose(
        [score for score, _ in found], [score for score, _ in expected], atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.usefixtures("catalogue")
def test_the_readmes_program_answers_a_picture_as_the_golden_answers_do(tmp_path: Path) -> None:
    model = catalogued("mobilenet-v2")
    folder = download(release_model(model), tmp_path / "release")
    picture = tmp_path / "chelsea.png"  # the recipe's first picture, as the run fetched it
    digest = "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"
    shutil.copy(local_settings().cache / "sha256" / digest[:2] / digest, picture)

    found = run_readme(folder, str(picture))

    golden = load_arrays(folder / "golden" / "answers" / "pictures.npz")["logits"][0]
    expected = best_five(folder, golden)
    assert [label for _, label in found] == [label for _, label in expected]
    assert found[0][1] == "Egyptian cat"
    np.testing.assert_allclose(
        [score for score, _ in found], [score for score, _ in expected], rtol=1e-4
    )


def test_the_links_in_prefect_open_without_credentials_and_say_how_long(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue()

    release_model(model)

    text = artifact_of(model)
    links = links_in(text)
    pages = {"README.md", "index.html", "parity/report.html", "graph.svg"}
    assert set(links) == {*pages, "onnx/model.onnx"}
    manifest = publishing.read_release(store(), model, 1)
    sizes = {file.path: file.size_bytes for file in manifest.files}
    for path, link in links.items():
        answer = httpx.get(link, trust_env=False)
        assert (answer.status_code, len(answer.content)) == (200, sizes[path])
        assert answer.headers["content-type"] == TYPES[Path(path).suffix]
    assert re.search(r"open until \*\*20\d\d-\d\d-\d\d \d\d:\d\d UTC\*\* \(7 days\)", text)
    assert "for whoever has them" in text


def test_a_link_of_one_second_is_refused_after_it(
    catalogue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVEYOR_STORE_LINK_SECONDS", "1")
    forget_settings()
    model = catalogue()

    release_model(model)

    text = artifact_of(model)
    assert "(1 second)" in text
    time.sleep(2.1)  # whole seconds are signed: at most one more than the life itself
    assert httpx.get(links_in(text)["README.md"], trust_env=False).status_code == 403


def test_links_can_be_turned_off(
    catalogue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVEYOR_STORE_LINK_SECONDS", "0")
    forget_settings()
    model = catalogue()

    release_model(model)

    text = artifact_of(model)
    assert "X-Amz" not in text
    assert links_in(text) == {}
    assert f"`{store().url(f'{model}/1/onnx/model.onnx')}`" in text


def test_pages_that_cannot_be_written_fail_no_release_and_the_next_one_heals_them(
    catalogue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = catalogue()
    create = S3Store.create

    def refuse_pages(
        self: S3Store, key: str, content: bytes, content_type: str = "application/json"
    ) -> bool:
        if key == f"{model}/README.md":
            raise StorageUnavailableError(f"{key}: the store went away.")
        return create(self, key, content, content_type)

    with monkeypatch.context() as broken:
        broken.setattr(S3Store, "create", refuse_pages)
        release_model(model)
    assert f"{model}/README.md" not in set(store().keys(f"{model}/"))
    assert publishing.latest(store(), model) is not None

    release_model(model, force=True)

    page = store().read(f"{model}/README.md").content.decode()
    assert page.index("[2](2/README.md)") < page.index("[1](1/README.md)")


def test_a_graph_that_cannot_be_drawn_stops_no_release(
    catalogue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.steps import draw_graph
    from tests.support.child_functions import die_of_segfault

    model = catalogue()
    monkeypatch.setattr(draw_graph, "draw_graph", die_of_segfault)

    release_model(model)

    manifest = publishing.latest(store(), model)
    assert manifest is not None
    assert "graph.svg" not in {file.path for file in manifest.files}
    assert b"graph.svg" not in store().read(f"{model}/1/README.md").content
