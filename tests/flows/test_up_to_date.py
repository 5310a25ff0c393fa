"""A second run of a model that has not changed does nothing, and takes nothing on trust."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prefect.artifacts import Artifact

from flows.release_catalog import Outcome, release_catalog
from flows.release_model import release_model
from tasks.domain.errors import ParityError
from tasks.settings import local_settings, store_settings
from tasks.storage import publishing
from tasks.storage.s3 import S3Store, open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from prefect.client.schemas.objects import State

    from tasks.domain.release import Manifest, Published


def store() -> S3Store:
    return open_store(store_settings())


def objects() -> dict[str, str]:
    return {each.key: each.etag for each in store().entries("")}


def latest(model: str) -> Manifest:
    manifest = publishing.latest(store(), model)
    assert manifest is not None
    return manifest


def recipe_file(model: str) -> Path:
    return local_settings().catalogue / f"{model}.yaml"


def run(model: str, **parameters: Any) -> State[Published]:
    return release_model(model, return_state=True, **parameters)


def run_catalogue(**parameters: Any) -> Any:
    async def go() -> Any:
        return await release_catalog(return_state=True, **parameters)

    return asyncio.run(go())


def artifact(key: str) -> str:
    found = asyncio.run(Artifact.aget(key))
    assert found is not None
    return str(found.data)


@pytest.fixture
def no_children(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lend a function after which the start of a child process fails the test."""

    def forbid() -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a child process was started")

        monkeypatch.setattr("tasks.isolation.subprocess.Popen", refuse)

    return forbid


def test_a_second_run_is_up_to_date_starts_no_child_and_writes_nothing(
    catalogue: Callable[..., str], no_children: Callable[[], None]
) -> None:
    model = catalogue()
    first = release_model(model)
    before = objects()
    no_children()

    state = run(model)

    files = len(latest(model).files)
    assert (state.name, state.is_completed()) == ("Up to date", True)
    assert state.message == f"{model}: version 1 is up to date ({files} files checked)"
    assert state.result() == first
    assert objects() == before


def test_the_fixture_would_notice_a_child(
    catalogue: Callable[..., str], no_children: Callable[[], None]
) -> None:
    model = catalogue()
    no_children()

    with pytest.raises(AssertionError, match="a child process was started"):
        release_model(model)


def test_the_first_release_has_nothing_to_compare_with(catalogue: Callable[..., str]) -> None:
    model = catalogue()

    release_model(model)

    manifest = latest(model)
    assert (manifest.changed_since, manifest.changes) == (None, ())
    assert manifest.fingerprint.parts["recipe.opset"] == "17"


def test_a_changed_recipe_is_released_and_the_manifest_report_and_artifact_say_what_changed(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue()
    release_model(model)
    text = recipe_file(model).read_text()
    recipe_file(model).write_text(text.replace("opset: 17", "opset: 18"))

    release_model(model)

    manifest = latest(model)
    assert (manifest.version, manifest.changed_since) == (2, 1)
    assert manifest.changes == ("recipe.opset 17 -> 18",)
    page = store().read(f"{model}/2/parity/report.html").content.decode()
    assert "What changed since version 1" in page
    assert "recipe.opset 17 -&gt; 18" in page
    shown = artifact(f"changes-{model}")
    assert f"What changed in {model} since version 1" in shown
    assert "- `recipe.opset 17 -> 18`" in shown
    assert run(model).name == "Up to date"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        pytest.param("remove", "onnx/model.onnx is gone", id="removed"),
        pytest.param("overwrite", "onnx/model.onnx holds other bytes", id="overwritten"),
    ],
)
def test_harm_done_to_a_published_file_makes_a_new_version_that_says_why(
    catalogue: Callable[..., str], harm: str, said: str
) -> None:
    model = catalogue()
    release_model(model)
    where: dict[str, Any] = {"Bucket": store().bucket, "Key": f"{model}/1/onnx/model.onnx"}
    if harm == "remove":
        store().client.delete_object(**where)
    else:
        content = store().read(where["Key"]).content
        store().client.put_object(**where, Body=content[:-1] + bytes([content[-1] ^ 1]))

    published = release_model(model)

    manifest = latest(model)
    assert published.version == manifest.version == 2
    assert (manifest.changed_since, manifest.changes) == (1, (said,))


def test_force_publishes_what_has_not_changed(catalogue: Callable[..., str]) -> None:
    model = catalogue()
    release_model(model)

    state = run(model, force=True)

    assert state.name == "Completed"
    assert latest(model).version == 2
    assert latest(model).changes == ("nothing changed; it was forced",)


def test_a_version_that_is_asked_for_is_published_though_nothing_has_changed(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue()
    release_model(model)

    published = release_model(model, version=5)

    assert published.version == latest(model).version == 5
    assert latest(model).changes == ("nothing changed; version 5 was asked for",)


def test_a_recipe_whose_release_failed_is_not_up_to_date_and_its_old_text_is(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue()
    release_model(model)
    good = recipe_file(model).read_text()
    recipe_file(model).write_text(f"{good}\nconverters: {{onnx: [drops-bias]}}\n")
    with pytest.raises(ParityError):
        release_model(model)

    with pytest.raises(ParityError):
        release_model(model)

    recipe_file(model).write_text(good)
    state = run(model)
    assert state.name == "Up to date"
    assert state.result().version == 1


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Note which models the catalogue starts a run for; running them takes a worker."""
    runs: list[tuple[str, bool]] = []

    async def note(model: str, *_: object, force: bool = False, **_begun: object) -> Outcome:
        runs.append((model, force))
        return Outcome(model=model, state="Completed", message="", seconds=1.0)

    monkeypatch.setattr("flows.release_catalog.release_one", note)
    return runs


def test_a_catalogue_starts_runs_only_for_what_has_changed(
    catalogue: Callable[..., str], started: list[tuple[str, bool]]
) -> None:
    released, changed, new = catalogue(name="a"), catalogue(name="b"), catalogue(name="c")
    for model in (released, changed):
        release_model(model)
    text = recipe_file(changed).read_text()
    recipe_file(changed).write_text(text.replace("opset: 17", "opset: 18"))

    state = run_catalogue()

    assert started == [(changed, False), (new, False)]
    assert state.message == "2 of 3 models released, 1 up to date"
    outcomes = {each.model: each for each in state.result()}
    assert outcomes[released].state == "Up to date"
    assert outcomes[released].completed
    assert "version 1 is up to date" in outcomes[released].message
    assert '"state": "Up to date"' in artifact("catalogue")


def test_a_forced_catalogue_starts_a_run_for_every_model(
    catalogue: Callable[..., str], started: list[tuple[str, bool]]
) -> None:
    model = catalogue()
    release_model(model)

    run_catalogue(force=True)

    assert started == [(model, True)]


def test_a_model_that_cannot_be_asked_about_gets_a_run_that_will_say_why(
    catalogue: Callable[..., str], started: list[tuple[str, bool]]
) -> None:
    model = catalogue(converters={"onnx": ["no-such-converter"]})

    run_catalogue()

    assert started == [(model, False)]


def test_only_the_selected_models_get_a_run_and_stale_means_not_up_to_date(
    catalogue: Callable[..., str], started: list[tuple[str, bool]]
) -> None:
    released = catalogue(name="a", tags=["small"])
    new, other = catalogue(name="b", tags=["small"]), catalogue(name="c")
    release_model(released)

    state = run_catalogue(select="tag:small stale")
    forced = run_catalogue(select="tag:small, name:c*", force=True)
    not_stale = run_catalogue(select="not stale", force=True)

    assert started[:1] == [(new, False)]
    assert state.message == "all 1 models released"
    assert started[1:4] == [(released, True), (new, True), (other, True)]
    assert forced.is_completed()
    assert started[4:] == [(released, True)]
    assert not_stale.is_completed()


def test_nothing_that_is_stale_is_nothing_to_do_and_a_slip_is_an_error(
    catalogue: Callable[..., str], started: list[tuple[str, bool]]
) -> None:
    model = catalogue(tags=["small"])
    release_model(model)

    state = run_catalogue(select="stale")
    wrong = run_catalogue(select="tag:smal")

    assert (state.is_completed(), state.message) == (
        True,
        "no model is meant, so there was nothing to do",
    )
    assert "no recipe's tag fits 'smal'. Did you mean 'small'? There are: small." in wrong.message
    assert started == []
