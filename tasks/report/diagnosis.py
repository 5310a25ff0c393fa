"""What went wrong: the stages as a ladder, the node, and how to see it for oneself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.report.figures import figure
from tasks.report.parity_table import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.domain.diagnosis import Diagnosis, StageVerdict

_MARKS = {True: "✔", False: "✘", None: "○"}
_KINDS = {True: "good", False: "bad", None: "none"}


def diagnosis_views(diagnoses: Sequence[Diagnosis]) -> list[dict[str, Any]]:
    """Return what the page shows of each failed candidate."""
    return [
        {
            "title": f"{each.candidate.label}, by {each.converter}",
            "rungs": [
                {
                    "mark": _MARKS[verdict.passed],
                    "kind": _KINDS[verdict.passed],
                    "name": _name(verdict),
                    "words": verdict.words,
                }
                for verdict in each.verdicts
            ],
            "words": each.words,
            "facts": _facts(each),
            "reproducer": each.reproducer,
        }
        for each in diagnoses
    ]


def diagnosis_markdown(diagnoses: Sequence[Diagnosis]) -> str:
    """Render the same for Prefect."""
    return "\n".join(line for each in diagnoses for line in _lines(each))


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    yield f"## What went wrong: {diagnosis.candidate.label}, by {diagnosis.converter}"
    yield ""
    for verdict in diagnosis.verdicts:
        mark = {True: "✅", False: "❌", None: "⬜"}[verdict.passed]
        yield f"1. {mark} **{plain(_name(verdict))}**: {plain(verdict.words)}"
    yield ""
    yield plain(diagnosis.words)
    yield ""
    for name, value in _facts(diagnosis):
        yield f"- {name}: {plain(value)}"
    if diagnosis.reproducer:
        yield f"- Reproduce it: `python {diagnosis.reproducer}/reproduce.py`"
    yield ""


def _name(verdict: StageVerdict) -> str:
    return f"{verdict.stage} ({verdict.step})" if verdict.step else verdict.stage


def _facts(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    return [*_of_culprit(diagnosis), *_of_input(diagnosis)]


def _of_input(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    shrunk = diagnosis.shrunk
    if shrunk is None:
        return []
    facts = [("Shrunk input", shrunk.words)]
    if shrunk.folder:
        facts.append(("Its files", f"{shrunk.folder}/inputs.npz, expected.npz, got.npz"))
    return facts


def _of_culprit(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    culprit = diagnosis.culprit
    if culprit is None:
        return []
    facts = [("Node", culprit.node), ("Operator", culprit.op_type), ("Tensor", culprit.tensor)]
    if culprit.layer:
        facts.append(("Layer of the source", culprit.layer))
    if culprit.max_abs is not None:
        facts.append(("Largest error", figure(culprit.max_abs)))
    if diagnosis.nodes:
        facts.append(("Nodes of the cut-out graph", str(diagnosis.nodes)))
    return facts
