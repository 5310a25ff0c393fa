"""Put other checks beside the gate: each planted fault by verify=True, np.allclose and ours.

    python benchmarks/faults.py

``torch.onnx.export(verify=True)`` is the real call: a fault of the raw export or of the exporter's
optimisation is put in at the end of the exporter's own ``optimize``, behind which torch verifies.
What happens to the file later, it cannot see. ``np.allclose`` has rtol=1e-3 and atol=1e-5, and the
rows of one random batch. The last column is the node that the diagnosis names.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tasks.arrays import load_arrays
from tasks.isolation import Call, Children, Family
from tests.corpus.faults import FAULTS
from tests.corpus.goods import RECIPES, Good, make_good
from tests.corpus.proving import diagnose, gate, plant
from tests.corpus.verifying import VerifyRequest, verify_by_torch

if TYPE_CHECKING:
    from tests.corpus.planting import Fault

_TORCH = {"picture", "text"}
_TORCH_SEES = {"raw export", "exporter's optimisation"}


def main() -> int:
    """Print the table; return 1 where the gate misses a fault."""
    rows = []
    with tempfile.TemporaryDirectory() as name, Children(Path(name)) as children:
        root = Path(name)
        goods = {each: make_good(each, children, root / each) for each in RECIPES}
        for fault in FAULTS.values():
            rows.append(_row(fault, goods[fault.good], root / f"fault-{fault.name}"))
            print(f"| {' | '.join(rows[-1])} |", flush=True)
    print(f"| **caught of {len(rows)}** | | | {' | '.join(_totals(rows))} |")
    return int(any(row[5] != "caught" for row in rows))


def _row(fault: Fault, good: Good, folder: Path) -> list[str]:
    right = plant(fault, good, folder / "bad")
    report = gate(good, folder / "bad", folder / "answers")
    found = diagnose(fault, good, folder / "bad", report, folder / "scratch")
    culprit = found.located.culprit if found.located else None
    stage = found.bisection.bad.stage if found.bisection else "none"
    named = culprit is not None and culprit.node in right
    return [
        fault.name,
        fault.good,
        fault.stage,
        _verify(fault, good, folder / "bad"),
        _allclose(good, folder / "answers"),
        "caught" if report is None or not report.passed else "missed",
        "right" if stage == fault.stage else stage,
        "right" if named else (culprit.node if culprit else "none"),
    ]


def _verify(fault: Fault, good: Good, model: Path) -> str:
    if fault.good not in _TORCH:
        return "n/a"
    if fault.stage not in _TORCH_SEES:
        return "missed"
    request = VerifyRequest(recipe=good.recipe, source=good.source, planted=model)
    call = Call("verify", good.recipe.name, Family.TORCH)
    words = good.children.call(verify_by_torch, request, call).value.words
    return "caught" if words else "missed"


def _allclose(good: Good, answers: Path) -> str:
    """Compare one random batch as scripts do: the declared outputs, by name."""
    if not (answers / "random.npz").is_file():
        return "caught"
    ours, theirs = (load_arrays(side / "random.npz") for side in (good.reference, answers))
    for name, expected in ours.items():
        got = theirs.get(name)
        if got is None or got.shape != expected.shape:
            return "caught"
        if not np.allclose(expected, got, rtol=1e-3, atol=1e-5):
            return "caught"
    return "missed"


def _totals(rows: list[list[str]]) -> list[str]:
    checks = [str(sum(row[place] == "caught" for row in rows)) for place in (3, 4, 5)]
    asked = sum(row[3] != "n/a" for row in rows)
    checks[0] += f" of {asked}"
    return checks + [str(sum(row[place] == "right" for row in rows)) for place in (6, 7)]


if __name__ == "__main__":
    sys.exit(main())
