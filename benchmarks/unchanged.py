"""Answer a catalogue in which nothing has changed: seconds, and requests to the store.

    python benchmarks/unchanged.py [--models 1000] [--limit 30]

Each model is a recipe file and a small release of 12 files, published as any other; the server
is the one of the tests. What is timed is what ``release-catalog`` does before it starts a run:
read and check every recipe, take every fingerprint, ask the store about every model
(``unchanged_catalogue.py`` times the whole run). It ends with an error if that takes longer than
the limit, or if one model is not found up to date.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deployments.s3_server import S3Server
from tasks import settings
from tasks.catalogue import load_catalogue, load_recipe
from tasks.fingerprint import fingerprint_of
from tasks.standing import find_up_to_date
from tasks.storage.publishing import publish
from tasks.storage.s3 import S3Store, open_store

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.publisher import manifest_maker

_TEMPLATE = Path("models/wine-logistic-regression.yaml")
_FILES = 12
_PUBLISHERS = 8


def main() -> int:
    """Publish, measure, print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, default=1_000)
    parser.add_argument("--limit", type=float, default=30, help="seconds that it may take")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with S3Server(folder / "server", grace_seconds=0) as server:
            os.environ.update(server.environment())
            settings.store_settings.cache_clear()
            store = open_store(server.settings)
            prepare(store, folder, options.models)
            return _measure(store, folder / "models", options.limit)


def prepare(store: S3Store, folder: Path, models: int) -> None:
    """Write the recipes, and publish a release of each."""
    catalogue = folder / "models"
    catalogue.mkdir()
    files = {f"onnx/part-{number}": folder / f"part-{number}" for number in range(_FILES)}
    for path in files.values():
        path.write_bytes(os.urandom(100))
    names = [f"model-{number}" for number in range(models)]
    text = _TEMPLATE.read_text("utf-8")
    for name in names:
        written = text.replace(f"name: {_TEMPLATE.stem}\n", f"name: {name}\n", 1)
        (catalogue / f"{name}.yaml").write_text(written, "utf-8")

    def release(name: str) -> None:
        maker = manifest_maker(name, fingerprint=fingerprint_of(load_recipe(name, catalogue)))
        publish(store, name, files, maker, owner="benchmark")

    begun = time.perf_counter()
    with ThreadPoolExecutor(_PUBLISHERS) as pool:
        list(pool.map(release, names))
    print(f"{models} releases of {_FILES} files published in {time.perf_counter() - begun:.0f} s\n")


def _measure(store: S3Store, catalogue: Path, limit: float) -> int:
    asked: Counter[str] = Counter()

    def count(**event: Any) -> None:  # noqa: ANN401 - boto3's own
        asked[event["model"].name] += 1

    store.client.meta.events.register("before-call.s3", count)
    begun = time.perf_counter()
    recipes = load_catalogue(catalogue)
    read = time.perf_counter()
    for recipe in recipes:
        fingerprint_of(recipe)
    taken = time.perf_counter()
    found = find_up_to_date(recipes)
    done = time.perf_counter()
    models, requests = len(recipes), sum(asked.values())
    seconds = done - begun - (taken - read)  # the fingerprints are taken again in the last step
    print(f"recipes read and checked    {read - begun:6.2f} s")
    print(f"fingerprints alone          {taken - read:6.2f} s (part of the next)")
    print(f"fingerprints and the store  {done - taken:6.2f} s")
    print(f"in all                      {seconds:6.2f} s for {models} models (limit {limit:.0f} s)")
    kinds = ", ".join(f"{number / models:g} {name}" for name, number in sorted(asked.items()))
    print(f"requests to the store       {requests / models:6.2f} a model ({kinds})")
    print(f"up to date                  {len(found)} of {models}")
    return 0 if seconds <= limit and len(found) == models else 1


if __name__ == "__main__":
    sys.exit(main())
