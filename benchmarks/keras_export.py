"""Keras to ONNX: the memory and the time of the plain script, and of this project's converter.

Run ``python benchmarks/keras_export.py [--model ResNet50] [--rounds 3]``. Each round runs the
plain tf2onnx script, then our converter, each in a process of its own; memory is the largest
resident size of that process and its descendants. Both load the same ``model.keras``. Ends
with the medians and their ratios, and fails where ours takes more than half the memory or
longer.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from tasks.converters import ConvertRequest
from tasks.converters.tf2onnx_keras import convert
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.sources import AcquireRequest
from tasks.sources.keras_applications import acquire

MOST_MEMORY = 0.5
MOST_TIME = 1.0
_MIB = 1024 * 1024

PLAIN = """
import sys
import keras, tensorflow as tf, tf2onnx
model = keras.models.load_model(sys.argv[1], compile=False)
signature = [tf.TensorSpec((None, 224, 224, 3), tf.float32, name="images")]
tf2onnx.convert.from_keras(model, signature, opset=17, output_path=sys.argv[2])
"""
"""What a tutorial says."""


class Taken(NamedTuple):
    """What one conversion took."""

    seconds: float
    peak_mb: float


def recipe_of(model: str) -> Recipe:
    """Return the recipe of an application with random weights."""
    domain = {"kind": "range", "low": -120, "high": 150}
    shape = ("batch", 224, 224, 3)
    image = {"name": "images", "dtype": "float32", "shape": shape, "domain": domain}
    logits = {"name": "logits", "dtype": "float32", "shape": ("batch", 1000)}
    return Recipe.model_validate(
        {
            "name": "benchmark",
            "description": "A benchmark.",
            "licence": "none",
            "source": {"kind": "keras-applications", "model": model, "head": "linear"},
            "signature": {"inputs": [image], "outputs": [logits]},
            "limits": {"memory_mb": 20_000},
        }
    )


def plain(source: Path, target: Path) -> Taken:
    """Run the plain script."""
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(
        [sys.executable, "-c", PLAIN, str(source / "model.keras"), str(target / "model.onnx")],
        stderr=subprocess.DEVNULL,
    )
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, _resident(watched))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the plain script ended with exit code {process.returncode}")
    return Taken(time.monotonic() - started, peak / _MIB)


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.Error:
        return total
    return total


def ours(recipe: Recipe, source: Path, target: Path, logs: Path) -> Taken:
    """Run our converter in a new child process, its start and its end included."""
    started = time.monotonic()
    call = Call("export (tf2onnx-keras)", recipe.name, Family.TENSORFLOW, recipe.limits)
    with Children(logs) as children:
        request = ConvertRequest(recipe=recipe, source=source, folder=target)
        cost = children.call(convert, request, call).cost
    return Taken(time.monotonic() - started, cost.peak_mb)


def main() -> int:
    """Compare, print, and say by the exit code whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ResNet50", help="name in keras.applications")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        return _compare(recipe_of(options.model), options.rounds, Path(name))


def _compare(recipe: Recipe, rounds: int, folder: Path) -> int:
    source, target = folder / "source", folder / "target"
    source.mkdir()
    target.mkdir()
    call = Call("acquire", recipe.name, Family.TENSORFLOW, recipe.limits)
    with Children(folder) as children:
        request = AcquireRequest(recipe=recipe, downloads=(), folder=source)
        children.call(acquire, request, call)
    taken: dict[str, list[Taken]] = {"plain": [], "ours": []}
    for i in range(rounds):
        taken["plain"].append(plain(source, target))
        taken["ours"].append(ours(recipe, source, target, folder))
        for who, runs in taken.items():
            print(f"round {i + 1} {who:5}: {runs[-1].seconds:6.1f} s {runs[-1].peak_mb:7,.0f} MiB")
    medians = {
        who: Taken(*map(statistics.median, zip(*runs, strict=True))) for who, runs in taken.items()
    }
    for who, median in medians.items():
        print(f"median  {who:5}: {median.seconds:6.1f} s {median.peak_mb:7,.0f} MiB")
    seconds = medians["ours"].seconds / medians["plain"].seconds
    memory = medians["ours"].peak_mb / medians["plain"].peak_mb
    print(f"ratio: {seconds:.2f} of the time (at most {MOST_TIME}), ", end="")
    print(f"{memory:.2f} of the memory (at most {MOST_MEMORY})")
    return int(seconds > MOST_TIME or memory > MOST_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
