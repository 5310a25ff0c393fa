"""A real release, its public key and nothing else: what is wrong with it is named."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from flows.release_model import release_model
from tasks.settings import LocalSettings, store_settings
from tasks.storage.fetching import fetch_release
from tasks.storage.keys import signing_key
from tasks.storage.places import CLAIM, DRAFT
from tasks.storage.s3 import S3Store, open_store
from tasks.verify_release import main, verify_folder, verify_published
from tests.flows.conftest import LINEAR, forget_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.s3_server import S3Server

ROOT = Path(__file__).parents[2]
TRUST = (ROOT / "docs" / "trust.md").read_text()
SCHEMA = json.loads((ROOT / "docs" / "manifest.schema.json").read_text())


@dataclass(frozen=True)
class Released:
    """Two releases of one model in a bucket, the first one in a folder too."""

    model: str
    folder: Path
    public_key: Path
    store: S3Store


@pytest.fixture(scope="module")
def released(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Released]:
    """Publish two versions by the whole line, with a key of the test's own."""
    home = tmp_path_factory.mktemp("released")
    model = f"linear-{os.urandom(4).hex()}"
    (home / "models").mkdir()
    (home / "models" / f"{model}.yaml").write_text(yaml.safe_dump(LINEAR | {"name": model}))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        patch.setenv("CONVEYOR_CATALOGUE", str(home / "models"))
        patch.setenv("CONVEYOR_SIGNING_KEY", str(home / "keys" / "signing.pem"))
        forget_settings()
        release_model(model)
        release_model(model, force=True)
        store = open_store(store_settings())
        fetch_release(store, model, 1, home / "release")
        yield Released(model, home / "release", home / "keys" / "signing.pem.pub", store)
    forget_settings()


@pytest.fixture
def copy(released: Released, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released.folder, tmp_path / "release"))


def files_of(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(content)


def key_at(path: Path) -> Path:
    assert signing_key(LocalSettings(signing_key=path))
    return path.with_name(f"{path.name}.pub")


def test_a_published_release_is_verified_with_the_public_key_alone(released: Released) -> None:
    verification = verify_published(released.store, released.model, "latest", released.public_key)

    assert verification.passed, verification
    assert (verification.model, verification.version) == (released.model, 2)
    assert [check.name for check in verification.checks] == [
        *("signature", "tree", "files", "release", "provenance", "alias", "golden")
    ]
    assert "onnxruntime" in verification.checks[-1].words


@pytest.mark.parametrize("place", [0, -1, 12_345], ids=["first", "last", "middle"])
def test_a_byte_flipped_in_any_file_is_found_and_that_file_is_named(
    released: Released, copy: Path, place: int
) -> None:
    paths = files_of(copy)
    assert {path.partition("/")[0] for path in paths} == {
        *("onnx", "parity", "golden", "provenance.json", "manifest.json", "model.sig"),
        *("README.md", "index.html", "graph.svg"),
    }
    found = {}

    for path in paths:
        flip(copy / path, place)
        found[path] = verify_folder(copy, released.public_key)
        flip(copy / path, place)

    assert not any(each.passed for each in found.values())
    assert {path: each.wrong for path, each in found.items()} == {path: (path,) for path in paths}
    # nothing of a release runs before it is proven
    assert all(each.checks[-1].skipped for each in found.values())


def test_a_byte_flipped_in_the_bucket_is_found(
    released: Released, capsys: pytest.CaptureFixture[str]
) -> None:
    key = f"{released.model}/1/onnx/model.onnx"
    right = released.store.read(key).content
    wrong = right[:-1] + bytes([right[-1] ^ 128])
    released.store.client.put_object(Bucket=released.store.bucket, Key=key, Body=wrong)
    try:
        code = main([released.model, "1", "--public-key", str(released.public_key)])
    finally:
        released.store.client.put_object(Bucket=released.store.bucket, Key=key, Body=right)

    said = capsys.readouterr().out
    assert code == 1
    assert "WRONG tree: onnx/model.onnx: changed" in said
    assert said.endswith(f"s3://models/{released.model}/1/: NOT verified\n")


def test_a_file_that_was_deleted_is_named(released: Released, copy: Path) -> None:
    wrong = {}

    for path in files_of(copy):
        (copy / path).rename(copy.parent / "aside")
        wrong[path] = verify_folder(copy, released.public_key).wrong
        (copy.parent / "aside").rename(copy / path)

    assert wrong == {path: (path,) for path in files_of(copy)}


@pytest.mark.parametrize("path", ["onnx/other.onnx", ".hidden", ".git/config", "onnx/.claim.json"])
def test_a_file_that_was_added_is_named(released: Released, copy: Path, path: str) -> None:
    (copy / path).parent.mkdir(exist_ok=True)
    (copy / path).write_bytes(b"added")

    verification = verify_folder(copy, released.public_key)

    assert verification.wrong == (path,)
    assert "it was added" in verification.checks[1].line()


def test_a_file_that_became_a_link_to_the_same_bytes_is_named(
    released: Released, copy: Path
) -> None:
    (copy / "onnx/model.onnx").rename(copy.parent / "elsewhere")
    (copy / "onnx/model.onnx").symlink_to(copy.parent / "elsewhere")

    assert verify_folder(copy, released.public_key).wrong == ("onnx/model.onnx",)


def test_the_publishers_notes_are_no_part_of_a_release(released: Released, copy: Path) -> None:
    for note in (CLAIM, DRAFT):
        (copy / note).write_bytes(released.store.read(f"{released.model}/1/{note}").content)

    assert verify_folder(copy, released.public_key).passed


def test_another_persons_key_does_not_do(copy: Path, tmp_path: Path) -> None:
    verification = verify_folder(copy, key_at(tmp_path / "other.pem"))

    assert verification.wrong == ("model.sig",)
    assert "signed by another key" in verification.checks[0].line()


def test_the_signature_of_another_release_does_not_do(released: Released, copy: Path) -> None:
    other = released.store.read(f"{released.model}/2/model.sig").content
    (copy / "model.sig").write_bytes(other)

    verification = verify_folder(copy, released.public_key)

    assert verification.checks[0].passed
    assert {"manifest.json", "provenance.json"} <= set(verification.wrong)


def test_another_release_that_is_whole_and_signed_is_not_taken_for_the_one_asked_for(
    released: Released, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--folder", str(copy), "--public-key", str(released.public_key)]

    codes = [main([*names, *options]) for names in ((released.model, "2"), ("resnet50",))]

    said = capsys.readouterr().out
    assert codes == [1, 1]
    assert "manifest.json: is of version 1 (expected 2): another release" in said
    assert f"manifest.json: is of model {released.model} (expected resnet50)" in said


def test_an_alias_that_names_another_manifest_is_noticed(
    released: Released, capsys: pytest.CaptureFixture[str]
) -> None:
    latest = json.loads(released.store.read(f"{released.model}/aliases/latest.json").content)
    latest["version"] = 1
    released.store.create(f"{released.model}/aliases/moved.json", json.dumps(latest).encode())

    code = main([released.model, "moved", "--public-key", str(released.public_key)])

    assert code == 1
    assert "WRONG alias: manifest.json: not the one that the alias names" in capsys.readouterr().out


def test_a_release_that_was_never_signed_is_said_to_be_so(
    released: Released, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONVEYOR_SIGNING", "off")
    forget_settings()
    version = release_model(released.model, force=True).version
    monkeypatch.undo()
    forget_settings()

    code = main([released.model, str(version), "--public-key", str(released.public_key)])

    said = capsys.readouterr().out
    assert code == 1
    assert "WRONG signature: model.sig: missing; the manifest says that signing was off" in said
    manifest = json.loads(released.store.read(f"{released.model}/{version}/manifest.json").content)
    assert manifest["signing"] == {"method": "off", "public_key": None}
    jsonschema.validate(manifest, SCHEMA)


def test_a_model_that_answers_otherwise_fails_though_all_is_signed(
    copy: Path, tmp_path: Path
) -> None:
    from tasks.domain.release import Manifest
    from tasks.golden import check_golden

    for probe in (copy / "golden" / "inputs").iterdir():
        # what the model was never asked: the answers of one probe to the inputs of another
        others = [
            each for each in (copy / "golden" / "answers").iterdir() if each.name != probe.name
        ]
        shutil.copy(others[0], copy / "golden" / "answers" / f"{probe.name}.new")
    for new in (copy / "golden" / "answers").glob("*.new"):
        new.rename(new.with_suffix(""))
    manifest = Manifest.model_validate_json((copy / "manifest.json").read_bytes())

    check = check_golden(manifest, copy, tmp_path)

    assert not check.passed
    assert check.faults[0].path == "onnx/model.onnx"
    assert "differs" in check.line()


def test_one_json_document_says_it_all(
    released: Released, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(copy / "parity/onnx.json", 3)

    code = main(["--folder", str(copy), "--public-key", str(released.public_key), "--json"])

    said = json.loads(capsys.readouterr().out)
    assert code == 1
    assert (said["passed"], said["wrong"]) == (False, ["parity/onnx.json"])
    assert said["checks"][1]["faults"][0]["path"] == "parity/onnx.json"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(["nobody"], 1, "nobody/aliases/latest.json", id="no-such-model"),
        pytest.param(["nobody", "9"], 1, "nothing is published there", id="no-such-version"),
        pytest.param([], 2, "nothing to check", id="nothing"),
        pytest.param(["--folder", "/nowhere"], 2, "no such folder", id="no-folder"),
        pytest.param(["m", "latest", "--folder", "/"], 2, "has no aliases", id="folder-alias"),
    ],
)
def test_what_cannot_be_checked_is_said(
    released: Released,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    got = main([*arguments, "--public-key", str(released.public_key)])

    assert got == code
    assert words in capsys.readouterr().err


def test_a_store_that_is_down_is_not_taken_for_a_bad_release(
    released: Released, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONVEYOR_STORE_ENDPOINT", "http://127.0.0.1:9")
    forget_settings()

    code = main([released.model, "--public-key", str(released.public_key), "--json"])

    monkeypatch.undo()
    forget_settings()
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code == 2
    assert "did not answer" in said["error"]


def test_a_manifest_has_what_it_promises_and_is_valid_by_the_published_schema(
    released: Released,
) -> None:
    manifest = json.loads((released.folder / "manifest.json").read_text())

    jsonschema.validate(manifest, SCHEMA)

    page = f"/flow-runs/flow-run/{manifest['flow_run']}"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+" + page, manifest["flow_run_url"])
    assert {"cpu", "memory_mb", "cores", "platform"} <= set(manifest["host"])
    assert manifest["tools"]["onnxruntime"]
    assert manifest["recipe"]["licence"] == "BSD-3-Clause"
    assert "equal on" in manifest["formats"][0]["parity_summary"]
    assert {"acquire", "reference", "export onnx"} <= set(manifest["costs"])
    assert manifest["signing"]["method"] == "key"


def test_the_provenance_names_every_file_and_the_flow_run(released: Released) -> None:
    statement = json.loads((released.folder / "provenance.json").read_text())
    manifest = json.loads((released.folder / "manifest.json").read_text())

    definition = statement["predicate"]["buildDefinition"]
    details = statement["predicate"]["runDetails"]
    files = {each["path"]: each["sha256"] for each in manifest["files"]}
    del files["provenance.json"]
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == files
    assert definition["externalParameters"]["parameters"]["model"] == released.model
    assert details["metadata"]["invocationId"] == manifest["flow_run"]
    assert details["metadata"]["startedOn"] < details["metadata"]["finishedOn"]


def test_the_public_key_lies_in_the_bucket_by_its_fingerprint(released: Released) -> None:
    manifest = json.loads((released.folder / "manifest.json").read_text())

    kept = released.store.read(f"keys/{manifest['signing']['public_key']}.pem").content

    assert kept == released.public_key.read_bytes()


def commands(begin: str) -> list[str]:
    """Return the commands of docs/trust.md that begin so."""
    blocks = re.findall(r"```sh\n(.*?)```", TRUST, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(begin)]


@pytest.fixture
def stranger(released: Released, copy: Path) -> Path:
    """Lend a folder with ``release`` and ``signer.pub``, as the docs have them."""
    for note in (CLAIM, DRAFT):
        (copy / note).write_bytes(released.store.read(f"{released.model}/1/{note}").content)
    shutil.copy(released.public_key, copy.parent / "signer.pub")
    return copy.parent


@pytest.mark.parametrize(
    "begin", ["model_signing verify key", "python -m tasks.verify_release --f"]
)
@pytest.mark.parametrize("wrong", ["", "onnx/model.onnx"], ids=["as-published", "byte-flipped"])
def test_the_commands_of_the_docs_verify_a_release(stranger: Path, begin: str, wrong: str) -> None:
    (line,) = commands(begin)
    if wrong:
        flip(stranger / "release" / wrong, 9)
    lean = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(stranger)}

    done = subprocess.run(
        shlex.split(line),
        cwd=stranger,
        env=lean | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    said = done.stdout + done.stderr
    assert (done.returncode != 0) == bool(wrong), said
    assert wrong in said


@pytest.mark.parametrize("verb", ["sign", "verify"])
def test_the_keyless_commands_of_the_docs_have_options_that_exist(verb: str) -> None:
    (line,) = commands(f"model_signing {verb} sigstore")
    tool = Path(sys.executable).with_name("model_signing")

    shown = subprocess.check_output([tool, verb, "sigstore", "--help"], text=True)

    used = re.findall(r" (--[\w-]+)", line)
    assert used
    assert all(f"{option} " in shown for option in used)


def test_verifying_needs_no_prefect() -> None:
    code = "import tasks.verify_release, sys; print('prefect' in sys.modules)"

    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "False\n"
