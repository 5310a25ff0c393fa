"""What parity costs beside the export that it checks, on models of ResNet-50's size.

Run ``python -m benchmarks.parity_cost [--rounds 3]``. The recipes are those of the catalogue, with
real pictures; each round does everything anew. Parity is what the stage of this name does:
ONNX Runtime answers every probe, the answers are compared, and a few rows are run at every
other level. Its memory is that of the largest child process, as is the export's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.trial import Bench, Trial
from tasks.catalogue import load_recipe
from tasks.domain.recipe import Pictures, Recipe
from tasks.fetch import fetch
from tasks.isolation import Children
from tasks.settings import local_settings

MODELS = (("resnet50-seeded", 18), ("resnet50-seeded", 17), ("keras-resnet50-seeded", 17))
"""Recipes and opsets: torch-dynamo writes 18 and later, TorchScript is there for 17."""
TARGET_SECONDS, TARGET_MEMORY = 1.0, 1.2


def measured(recipe: Recipe) -> Trial:
    """Take one model through the gate in new processes."""
    real = recipe.parity.real
    files = real.files if isinstance(real, Pictures) else ()
    cache = local_settings().cache
    pictures = tuple(fetch(each, cache) for each in files)
    with (
        tempfile.TemporaryDirectory() as folder,
        Children(Path(folder)) as children,
    ):
        return Bench(children, Path(folder), pictures).run(recipe)


def main() -> None:
    """Measure each model, and print the ratios."""
    parser = argparse.ArgumentParser(prog="benchmarks.parity_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print("model, converter: parity s / export s = ratio; parity MiB / export MiB = ratio")
    for model, opset in MODELS:
        recipe = load_recipe(model, local_settings().catalogue)
        trials = [measured(recipe.model_copy(update={"opset": opset})) for _ in range(rounds)]
        if wrong := [each.words for each in trials if each.verdict != "equal"]:
            sys.exit(wrong[0])
        times = statistics.median(each.parity.seconds / each.export.seconds for each in trials)
        memory = statistics.median(each.parity.peak_mb / each.export.peak_mb for each in trials)
        last = trials[-1]
        print(
            f"{model}, {last.converter}, {last.rows} rows: "
            f"{last.parity.seconds:.1f} / {last.export.seconds:.1f} = {times:.2f} "
            f"(target below {TARGET_SECONDS}); "
            f"{last.parity.peak_mb:,.0f} / {last.export.peak_mb:,.0f} = {memory:.2f} "
            f"(target {TARGET_MEMORY})"
        )


if __name__ == "__main__":
    main()
