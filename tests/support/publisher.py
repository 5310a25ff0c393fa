"""A small release, and a process that publishes it and dies where it is told.

python -m tests.support.publisher MODEL OWNER FOLDER STEP [REQUEST]: the store's settings are in
the environment; the process kills itself when it reports its STEPth step, or when the store has
answered its REQUESTth request (0: never). What the store was asked goes to standard output.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.domain.artifact import Cost, ModelFormat
from tasks.domain.fingerprint import Fingerprint
from tasks.domain.provenance import Statement, statement_of
from tasks.domain.recipe import Recipe
from tasks.domain.release import Manifest, ReleaseFile, Signing
from tasks.settings import LocalSettings, store_settings
from tasks.storage.keys import signing_key
from tasks.storage.publishing import publish
from tasks.storage.s3 import open_store
from tasks.storage.sealing import Seal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_RECIPE: dict[str, Any] = {
    "description": "A linear classifier.",
    "licence": "BSD-3-Clause",
    "source": {
        "kind": "train-sklearn",
        "dataset": "iris",
        "steps": [{"estimator": "sklearn.linear_model.LogisticRegression"}],
    },
    "signature": {
        "inputs": [
            {
                "name": "x",
                "dtype": "float32",
                "shape": ["batch", 4],
                "domain": {"kind": "range", "low": 0, "high": 8},
            }
        ],
        "outputs": [{"name": "y", "dtype": "int64", "shape": ["batch"]}],
    },
}


FINGERPRINT = Fingerprint.of({"recipe.opset": "17"})


def recipe_of(model: str) -> Recipe:
    return Recipe.model_validate({"name": model, **_RECIPE})


def seal_for(model: str) -> Seal:
    """Return a seal with the key of the environment's settings."""

    def statement_for(files: tuple[ReleaseFile, ...]) -> Statement:
        return statement_of(
            recipe_of(model),
            files,
            parameters={"model": model},
            tools={},
            host={},
            flow_run=None,
            started=datetime.now(UTC),
            finished=datetime.now(UTC),
        )

    return Seal(statement_for, signing_key(LocalSettings()))


def manifest_maker(
    model: str, signing: Signing | None = None, fingerprint: Fingerprint = FINGERPRINT
) -> Callable[[int, tuple[ReleaseFile, ...]], Manifest]:
    def manifest_for(version: int, files: tuple[ReleaseFile, ...]) -> Manifest:
        return Manifest(
            model=model,
            version=version,
            created=datetime.now(UTC),
            seeded=False,
            recipe=recipe_of(model),
            fingerprint=fingerprint,
            changed_since=None,
            changes=(),
            source_format=ModelFormat.SKLEARN,
            source_sha256="0" * 64,
            metrics={},
            source_notes=(),
            reference_runtime="sklearn",
            probes=(),
            formats=(),
            files=files,
            costs={"export": Cost(seconds=1.0)},
            tools={},
            host={},
            flow_run=None,
            signing=signing or Signing(),
        )

    return manifest_for


def write_files(folder: Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    files = {path: folder / path for path in contents}
    for path, file in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(contents[path])
    return files


def files_below(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path for path in paths}


def main(model: str, owner: str, folder: Path, fatal_step: int, fatal_request: int = 0) -> None:
    steps, requests = count(1), count(1)
    store = open_store(store_settings())

    def report(_share: float, _text: str) -> None:
        if next(steps) == fatal_step:
            os.kill(os.getpid(), signal.SIGKILL)

    def answered(model: Any, **_: object) -> None:
        number = next(requests)
        sys.stdout.write(f"{model.name}\n")
        sys.stdout.flush()
        if number == fatal_request:
            os.kill(os.getpid(), signal.SIGKILL)

    store.client.meta.events.register("after-call.s3", answered)
    seal = seal_for(model)
    publish(
        store,
        model,
        files_below(folder),
        manifest_maker(model, seal.signing),
        owner=owner,
        on_progress=report,
        seal=seal,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:]))
