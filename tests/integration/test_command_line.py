"""The command line as people and scripts meet it: words, one JSON document, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from deployments.command_line import REGISTER, main
from deployments.commands.answering import table
from tasks.settings import store_settings
from tasks.storage.publishing import publish
from tasks.storage.s3_inventory import S3Inventory, open_inventory
from tests.support.publisher import manifest_maker, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deployments.s3_server import S3Server

COMMANDS = {
    "versions", "aliases", "history", "diff", "promote", "rollback", "hold", "unhold", "gc", "fsck",
}  # fmt: skip


class Said(NamedTuple):
    """What a command wrote, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Inventory]:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    store_settings.cache_clear()
    yield open_inventory(store_settings())
    store_settings.cache_clear()


@pytest.fixture
def model(store: S3Inventory, tmp_path: Path) -> str:
    """Publish three releases and return the model's name."""
    name = f"model-{os.urandom(4).hex()}"
    for version in (1, 2, 3):
        files = write_files(tmp_path / str(version), {"onnx/model.onnx": b"onnx" * version})
        publish(store, name, files, manifest_maker(name), owner=str(version))
    return name


@pytest.fixture
def conveyor(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Lend a function that runs a command in this process."""

    def run(*words: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


@pytest.mark.usefixtures("store")
def test_an_alias_goes_through_its_life(model: str, conveyor: Callable[..., Said]) -> None:
    promoted = conveyor("promote", model, "champion", 2, "--reason", "better", "--by", "ann")
    conveyor("promote", model, "champion", "latest", "--expected", 2)
    back = conveyor("rollback", model, "champion", "--expected", 3, "--by", "bob")
    history = conveyor("history", model, "champion", "--json")
    standing = conveyor("aliases", model)

    assert (promoted.code, promoted.err) == (0, "")
    assert promoted.out == f"{model}: champion stands at version 2 (before: nowhere)\n"
    assert back.out == f"{model}: champion stands at version 2 (before: 3)\n"
    assert [each["version"] for each in history.document] == [2, 3, 2]
    assert [each["how"] for each in history.document] == ["rollback", "promote", "promote"]
    assert [each["by"] for each in history.document][::2] == ["bob", "ann"]
    assert [line.split()[:2] for line in standing.out.splitlines()[1:]] == [
        ["champion", "2"],
        ["latest", "3"],
    ]


@pytest.mark.usefixtures("store")
def test_history_is_of_latest_unless_another_alias_is_named(
    model: str, conveyor: Callable[..., Said]
) -> None:
    said = conveyor("history", model)

    assert [line.split()[2:4] for line in said.out.splitlines()[1:]] == [
        ["3", "publish"],
        ["2", "publish"],
        ["1", "publish"],
    ]


@pytest.mark.usefixtures("store")
def test_versions_are_listed_with_what_needs_them(
    model: str, conveyor: Callable[..., Said]
) -> None:
    conveyor("hold", model, 1, "--reason", "a customer runs it", "--by", "ann")

    said = conveyor("versions", model, "--json")
    people = conveyor("versions", model)

    assert [(each["version"], each["state"], each["needed"]) for each in said.document] == [
        (3, "whole", "alias latest"),
        (2, "whole", "a rollback of latest leads there"),
        (1, "whole", "held by ann: a customer runs it"),
    ]
    assert "held by ann" in people.out


@pytest.mark.usefixtures("store")
def test_two_versions_are_compared_by_number_or_alias(
    model: str, conveyor: Callable[..., Said]
) -> None:
    said = conveyor("diff", model, 1, "latest", "--json")
    people = conveyor("diff", model, 1, 3)
    same = conveyor("diff", model, 3, "latest")

    (change,) = said.document["changes"]
    assert (change["topic"], change["name"]) == ("files", "onnx/model.onnx")
    assert (change["before"][:7], change["after"][:8]) == ("4 bytes", "12 bytes")
    assert "files  onnx/model.onnx  4 bytes" in people.out
    assert same.out.endswith("facts are alike\n")


def test_garbage_is_only_named_until_it_is_to_be_deleted(
    store: S3Inventory, model: str, conveyor: Callable[..., Said]
) -> None:
    before = set(store.keys(f"{model}/"))

    dry = conveyor("gc", model, "--last", 1)
    assert set(store.keys(f"{model}/")) == before
    dry_json = conveyor("gc", model, "--last", 1, "--json")
    wet = conveyor("gc", model, "--last", 1, "--delete", "--json")

    assert dry.code == 0
    assert "1 to remove" in dry.out
    assert dry.out.endswith("nothing was removed: say --delete\n")
    assert dry_json.document["collected"] is None
    assert [each["version"] for each in wet.document["collected"]["removed"]] == [1]
    assert not list(store.keys(f"{model}/1/"))


@pytest.mark.usefixtures("store")
def test_a_hold_keeps_a_version_until_it_is_released(
    model: str, conveyor: Callable[..., Said]
) -> None:
    conveyor("hold", model, 1, "--reason", "a customer runs it")
    held = conveyor("gc", model, "--last", 1, "--json")
    released = conveyor("unhold", model, 1)
    free = conveyor("gc", model, "--last", 1, "--json")

    assert held.document["plan"]["removals"] == []
    assert released.out.endswith("is held no longer (was: a customer runs it)\n")
    assert [each["version"] for each in free.document["plan"]["removals"]] == [1]


def test_a_broken_file_is_one_line_and_exit_code_1(
    store: S3Inventory, model: str, conveyor: Callable[..., Said]
) -> None:
    sound = conveyor("fsck", model)
    store.client.put_object(Bucket=store.bucket, Key=f"{model}/2/onnx/model.onnx", Body=b"omnxonnx")

    broken = conveyor("fsck", model)
    document = conveyor("fsck", model, "--json")

    assert (sound.code, sound.out.count("\n")) == (0, 1)
    assert (broken.code, broken.err) == (1, "")
    assert broken.out.startswith(f"error: {model}/2/onnx/model.onnx: has other content (")
    assert document.code == 1
    assert [each["kind"] for each in document.document["findings"]] == ["digest"]


def test_a_document_of_a_newer_schema_is_one_line_that_says_what_to_do(
    store: S3Inventory, model: str, conveyor: Callable[..., Said]
) -> None:
    key = f"{model}/2/manifest.json"
    store.client.put_object(Bucket=store.bucket, Key=key, Body=b'{"schema_version": 7}')

    for words in (("promote", model, "champion", 2), ("diff", model, 1, 2), ("versions", model)):
        said = conveyor(*words, "--json")

        assert (said.code, said.out) == (1, "")
        assert said.err.startswith(f"conveyor: s3://models/{key}: was written by a newer version")
        assert "got 7). Install a version that knows 7" in said.err
    assert conveyor("gc", model).code == 1


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("promote", "{model}", "champion", "9"), "9/manifest.json: no such object"),
        (("promote", "{model}", "champion", "nobody"), "nobody.json: no such alias"),
        (("rollback", "{model}", "champion"), "cannot be rolled back"),
        (("history", "{model}", "champion"), "no such alias"),
        (("unhold", "{model}", "2"), "holds/2.json: no such object"),
        (("versions", "no-such-model"), "no version of this model"),
        (("promote", "{model}", "latest", "1", "--expected", "1"), "somebody moved it meanwhile"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_one_line_on_standard_error(
    model: str, conveyor: Callable[..., Said], words: tuple[str, ...], said: str
) -> None:
    answer = conveyor(*(word.format(model=model) for word in words), "--json")

    assert (answer.code, answer.out) == (1, "")
    assert answer.err.count("\n") == 1
    assert said in answer.err


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nothing",),
        ("gc", "--last", "0"),
        ("gc", "--idle-days", "-1"),
        ("fsck", "Not A Slug"),
        ("hold", "model", "1"),
        ("promote", "model", "../latest", "1"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_has_exit_code_2(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)

    assert caught.value.code == 2


def test_a_store_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, conveyor: Callable[..., Said]
) -> None:
    monkeypatch.setenv("CONVEYOR_STORE_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("CONVEYOR_STORE_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("CONVEYOR_STORE_SECRET_ACCESS_KEY", "secret")
    store_settings.cache_clear()
    try:
        said = conveyor("aliases", "model")
    finally:
        store_settings.cache_clear()

    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "did not answer" in said.err


def test_the_module_runs_from_a_shell_with_every_command_on_its_help_page() -> None:
    command = [sys.executable, "-m", "deployments.command_line", "--help"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert {line.split()[0] for line in done.stdout.splitlines() if line[:4] == "    "} >= COMMANDS
    assert len(REGISTER) >= 2


def test_a_reader_who_leaves_early_is_no_error(s3_server: S3Server, model: str) -> None:
    command = f"{sys.executable} -m deployments.command_line history {model} | true; echo $?"

    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=os.environ | s3_server.environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_the_command_line_imports_neither_prefect_nor_a_framework() -> None:
    code = "import deployments.command_line, sys; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()

    found = {name.partition(".")[0] for name in loaded}

    assert "deployments" in found
    assert not found & {"prefect", "boto3", "torch", "tensorflow", "onnx", "sklearn", "keras"}


def test_a_table_leaves_empty_columns_out() -> None:
    rows = [{"a": "1", "b": "", "c": "three"}, {"a": "22", "b": "", "c": ""}]

    assert table(rows) == "a   c\n1   three\n22"
    assert table([]) == ""


def test_the_models_page_follows_its_aliases_and_what_is_collected(
    store: S3Inventory, model: str, conveyor: Callable[..., Said]
) -> None:
    def page() -> str:
        return store.read(f"{model}/README.md").content.decode()

    assert conveyor("promote", model, "champion", 2).code == 0
    assert "champion" in page()
    assert "[1](1/README.md)" in page()

    assert conveyor("gc", model, "--last", 1, "--delete").code == 0
    assert "[2](2/README.md)" in page()
    assert "[1](1/README.md)" not in page()
