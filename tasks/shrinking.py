"""Shrink an input that shows a fault to the few elements that do; children do the work.

Rounds of simpler variants of the failing row are answered by a right way and by the wrong one,
each in its own family of children, and compared as the probe itself was; the simplest variant
that still fails goes into the next round. A variant that takes the wrong way's process along
fails too; one that the right way does not answer is none.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.domain.diagnosis import Shrunk, Way
from tasks.domain.errors import (
    ChildCrashedError,
    MemoryLimitError,
    ParityError,
    SignatureMismatchError,
    VerificationError,
)
from tasks.domain.release import ProbeInfo
from tasks.isolation import Call, Children, Family
from tasks.runners import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.bisecting import Case
    from tasks.domain.artifact import ModelFormat
    from tasks.steps.shrink import Described

MOST_ROUNDS = 8
"""The first one finds a row that passes."""
MOST_ROWS = 16
"""Variants of one round; each is a batch of its own."""
_COARSE, _FINE = (MOST_ROWS - 1) // 2, MOST_ROWS - 1
"""Parts into which what differs is cut: tried alone and left out; then only left out. One row is
kept free for what several variants left out, left out together."""

_NO_ANSWER = (VerificationError, SignatureMismatchError, ChildCrashedError, MemoryLimitError)
"""A time limit is not among them: waiting for it again, row after row, would have no bound."""


class Shrinking(NamedTuple):
    """The simplest failing row, and where its files are."""

    shrunk: Shrunk
    inputs: Path
    """A file of one row; ``expected`` and ``got`` likewise."""
    expected: Path
    got: Path | None
    """None where the wrong way crashes."""


class _Round(NamedTuple):
    """What the two ways made of one round's rows."""

    folder: Path
    passing: tuple[str, ...]
    failing: tuple[str, ...]

    def row(self, name: str) -> Path:
        return self.folder / "rows" / f"{name}.npz"


def shrink(
    case: Case, right: Way, wrong: Way, probes: Path, children: Children, scratch: Path
) -> Shrinking | None:
    """Make the row of ``case`` that fails most as simple as the budget allows.

    Args:
        case: The rows that show the fault.
        right: What the answers are compared with: the source, or the model it was made from.
        wrong: A way whose answers are wrong.
        probes: Folder of all probes.
        children: Where everything runs.
        scratch: Where folders may be made.

    Returns:
        None where the row alone does not fail, or no row of its shape passes.
    """
    return _Shrinker(case, right, wrong, children, scratch).run(probes)


class _Shrinker:
    def __init__(
        self, case: Case, right: Way, wrong: Way, children: Children, scratch: Path
    ) -> None:
        self._case, self._right, self._wrong = case, right, wrong
        self._children, self._scratch = children, scratch
        self.rounds, self.rows = 0, 0

    def run(self, probes: Path) -> Shrinking | None:
        from tasks.steps.shrink import FAILING

        first = self._judge_start(probes)
        if FAILING not in first.failing or not first.passing:
            return None
        passing = first.row(first.passing[0])
        current, minimal = self._fewer(first, passing)
        current = self._plainer(current, passing)
        return self._result(current, passing, first.passing[0], minimal=minimal)

    def _judge_start(self, probes: Path) -> _Round:
        from tasks.steps.shrink import StartRequest, start_shrinking

        folder = self._folder()
        case = self._case
        request = StartRequest(
            recipe=case.recipe,
            probe=case.probe.name,
            inputs=case.inputs,
            place=case.place,
            probes=probes,
            folder=folder / "rows",
        )
        names = self._children.call(start_shrinking, request, self._call(Family.LIGHT)).value.names
        return self._judge(folder, names)

    def _fewer(self, first: _Round, passing: Path) -> tuple[tuple[_Round, str], bool]:
        """Take from the failing row whatever the fault does not need, part by part."""
        from tasks.steps.shrink import FAILING

        current, grain = (first, FAILING), _COARSE
        merge: tuple[Path, ...] = ()
        while self.rounds < MOST_ROUNDS - 1:
            differing = self._describe(current, passing).differing
            if differing == 1:
                return current, True
            tried = self._simpler(current, passing, grain=min(grain, differing), merge=merge)
            if tried.failing:
                current = (tried, tried.failing[0])
                merge = tuple(map(tried.row, tried.failing[1:]))
                grain = _COARSE
                continue
            if differing <= grain:
                return current, True  # not one of them can be left out
            if grain == _FINE:
                break
            grain, merge = _FINE, ()
        return current, False

    def _plainer(self, current: tuple[_Round, str], passing: Path) -> tuple[_Round, str]:
        """Round the values that are left, and move them towards those that pass."""
        if self.rounds < MOST_ROUNDS:
            tried = self._simpler(current, passing, values=True)
            if tried.failing:
                return tried, tried.failing[0]
        return current

    def _simpler(
        self,
        current: tuple[_Round, str],
        passing: Path,
        *,
        grain: int = 1,
        merge: tuple[Path, ...] = (),
        values: bool = False,
    ) -> _Round:
        from tasks.steps.shrink import SimplerRequest, make_simpler

        folder = self._folder()
        request = SimplerRequest(
            recipe=self._case.recipe,
            failing=current[0].row(current[1]),
            passing=passing,
            merge=merge,
            values=values,
            grain=grain,
            most=MOST_ROWS,
            folder=folder / "rows",
        )
        names = self._children.call(make_simpler, request, self._call(Family.LIGHT)).value.names
        return self._judge(folder, names)

    def _judge(self, folder: Path, names: tuple[str, ...]) -> _Round:
        """Let both ways answer each row alone, and compare."""
        from tasks.steps.compare import CompareRequest, compare

        self.rounds += 1
        self.rows += len(names)
        known = self._answer(self._right, folder, names, "expected")
        answered = self._answer(self._wrong, folder, known, "got")
        failing = set(known) - set(answered)
        if answered:
            request = CompareRequest(
                recipe=self._case.recipe,
                candidate=self._wrong.format,
                runtime="",
                probes=tuple(ProbeInfo(name=each, rows=1, about="") for each in answered),
                reference=folder / "expected",
                answers=folder / "got",
                held=dict.fromkeys(answered, self._case.held),
            )
            report = self._children.call(compare, request, self._call(Family.LIGHT)).value
            failing |= {each.probe for each in report.probes if not each.passed}
        return _Round(
            folder,
            passing=tuple(each for each in known if each not in failing),
            failing=tuple(each for each in known if each in failing),
        )

    def _answer(self, way: Way, folder: Path, names: Sequence[str], side: str) -> tuple[str, ...]:
        """Return the rows that a way answers; it starts again behind each that it does not."""
        from tasks.steps.answer import AnswerRequest, answer

        left = list(names)
        while left:
            request = AnswerRequest(
                recipe=self._case.recipe,
                format=way.format,
                model=way.model,
                probes=folder / "rows",
                names=tuple(left),
                device=way.device,
                folder=folder / side,
                optimisation=way.optimisation,
            )
            try:
                self._children.call(answer, request, self._call(FAMILIES[way.format]))
                break
            except _NO_ANSWER:
                done = sum((folder / side / f"{each}.npz").is_file() for each in left)
                left = left[done + 1 :]
        return tuple(each for each in names if (folder / side / f"{each}.npz").is_file())

    def _describe(self, current: tuple[_Round, str], passing: Path) -> Described:
        from tasks.steps.shrink import DescribeRequest, describe

        request = DescribeRequest(
            recipe=self._case.recipe, failing=current[0].row(current[1]), passing=passing
        )
        return self._children.call(describe, request, self._call(Family.LIGHT)).value

    def _result(
        self, current: tuple[_Round, str], passing: Path, base: str, *, minimal: bool
    ) -> Shrinking:
        described = self._describe(current, passing)
        (at, name), case = current, self._case
        got = at.folder / "got" / f"{name}.npz"
        crashes = "" if got.is_file() else "; the candidate does not answer it"
        budget = "" if minimal else "; the budget ended before it was known that each is needed"
        shrunk = Shrunk(
            probe=case.probe.name,
            row=case.row,
            base=base,
            against=self._right.format,
            differing=described.differing,
            elements=described.elements,
            minimal=minimal,
            rounds=self.rounds,
            rows=self.rows,
            words=f"{described.words}{crashes}{budget}",
        )
        return Shrinking(
            shrunk,
            inputs=at.row(name),
            expected=at.folder / "expected" / f"{name}.npz",
            got=got if got.is_file() else None,
        )

    def _folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="shrink-", dir=self._scratch))
        for name in ("rows", "expected", "got"):
            (folder / name).mkdir()
        return folder

    def _call(self, family: Family) -> Call:
        recipe = self._case.recipe
        fails_as = ParityError if family is Family.LIGHT else VerificationError
        return Call("shrink", recipe.name, family, recipe.limits, fails_as)


def source_way(model: Path, format_: ModelFormat) -> Way:
    """Return the way that is right: the source framework, or the proven file it was made into."""
    return Way(stage="raw export", format=format_, model=model, optimisation="all")
