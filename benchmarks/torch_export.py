"""Export of ResNet-50 from torch to ONNX: the plain script against this project's converters.

Run ``python -m benchmarks.torch_export [--rounds 3]``. Each way starts from nothing, imports
torch, loads the same checkpoint and writes one ONNX file; the ways take turns. Memory is the
largest resident size of all the processes that a way started, sampled every 20 ms; each
ratio is to the plain script above it that also writes one file.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import yaml

from tasks.converters import ConvertRequest, convert_function
from tasks.domain.recipe import Recipe
from tasks.isolation import Call, Children, Family
from tasks.sources import SOURCES, AcquireRequest

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = """
import sys, torch, torchvision
model = torchvision.models.resnet50(weights=None)
model.load_state_dict(torch.load(sys.argv[1], weights_only=True))
model.eval()
images = (torch.rand(2, 3, 224, 224),)
names = {"input_names": ["images"], "output_names": ["logits"]}
match sys.argv[3]:
    case "torchscript":
        axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(model, images, sys.argv[2], dynamo=False, opset_version=17,
                          dynamic_axes=axes, **names)
    case how:
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(model, images, sys.argv[2], dynamo=True, opset_version=18,
                          dynamic_shapes=shapes, external_data=how == "two files", **names)
"""


class Taken(NamedTuple):
    """What one export took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def measured(work: Callable[[], None]) -> Taken:
    """Run ``work`` and watch the processes that it starts."""
    peak = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        own = psutil.Process()
        while not done.wait(0.02):
            size = 0
            for each in own.children(recursive=True):
                with suppress(psutil.Error):
                    size += each.memory_info().rss
            peak = max(peak, size / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu = _cpu_seconds()
    start = time.perf_counter()
    try:
        work()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    return Taken(seconds, _cpu_seconds() - cpu, peak)


def _cpu_seconds() -> float:
    """Return the processor time of the children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def plain(weights: Path, folder: Path, how: str) -> None:
    """Export by the script that the tutorials show."""
    files = (str(weights), str(folder / "model.onnx"))
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, *files, how]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ours(recipe: Recipe, source: Path, folder: Path, converter: str, opset: int) -> None:
    """Export by a converter in a child process of its own."""
    request = ConvertRequest(
        recipe=recipe.model_copy(update={"opset": opset}), source=source, folder=folder
    )
    logs = folder.with_suffix(".logs")
    logs.mkdir()
    with Children(logs) as children:
        call = Call(f"export ({converter})", recipe.name, Family.TORCH, recipe.limits)
        children.call(convert_function(converter), request, call)


def acquired(recipe: Recipe, folder: Path) -> Path:
    """Make the checkpoint that all of them load."""
    source = folder / "source"
    source.mkdir()
    kind = SOURCES[recipe.source.kind]
    with Children(folder) as children:
        request = AcquireRequest(recipe=recipe, downloads=(), folder=source)
        children.call(kind.acquire, request, Call("acquire", recipe.name, kind.family))
    return source


def main() -> None:
    """Measure, then print one table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    catalogue = Path(__file__).parent.parent / "models"
    recipe = Recipe.model_validate(
        yaml.safe_load((catalogue / "resnet50-seeded.yaml").read_text(encoding="utf-8"))
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = acquired(recipe, folder)
        weights = source / "model.pt"
        ways: dict[str, Callable[[Path], None]] = {
            "dynamo, plain script, one file": lambda at: plain(weights, at, "one file"),
            "dynamo, plain script, default": lambda at: plain(weights, at, "two files"),
            "dynamo, ours": lambda at: ours(recipe, source, at, "torch-dynamo", 18),
            "torchscript, plain script": lambda at: plain(weights, at, "torchscript"),
            "torchscript, ours": lambda at: ours(recipe, source, at, "torch-torchscript", 17),
        }
        results: dict[str, list[Taken]] = {way: [] for way in ways}
        for turn in range(rounds):
            for position, (way, export) in enumerate(ways.items()):
                at = folder / f"{turn}-{position}"
                at.mkdir()
                results[way].append(measured(lambda: export(at)))  # noqa: B023 - called at once
    _report(results)


def _report(results: dict[str, list[Taken]]) -> None:
    medians = {
        way: Taken(*(statistics.median(column) for column in zip(*each, strict=True)))
        for way, each in results.items()
    }
    columns = "".join(f"{name:>10}{'ratio':>7}" for name in ("seconds", "CPU s", "peak MiB"))
    print(f"{'ResNet-50, torch → ONNX':34}{columns}")
    base = next(iter(medians.values()))
    for way, taken in medians.items():
        if "plain" in way and "default" not in way:
            base = taken
        figures = "".join(
            f"{value:10,.1f}{value / plain_value:7.2f}"
            for value, plain_value in zip(taken, base, strict=True)
        )
        print(f"{way:34}{figures}")


if __name__ == "__main__":
    main()
