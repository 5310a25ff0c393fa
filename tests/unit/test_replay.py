"""Golden rows of the last release: those that no probe holds any more are tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.arrays import load_arrays, save_arrays
from tasks.steps.replay import (
    ReplayReply,
    ReplayRequest,
    SourceDriftRequest,
    compare_source,
    make_golden,
)
from tests.unit.test_report import recipe

if TYPE_CHECKING:
    from pathlib import Path


def replayed(folder: Path, now: object, **then: object) -> ReplayReply:
    for name in ("now", "inputs", "answers"):
        (folder / name).mkdir()
    save_arrays(folder / "now" / "random.npz", {"x": np.asarray(now)})
    for name, rows in then.items():
        save_arrays(folder / "inputs" / f"{name}.npz", {"x": np.asarray(rows)})
        said = np.arange(len(np.asarray(rows)), dtype=np.float32)
        save_arrays(folder / "answers" / f"{name}.npz", {"y": said})
    request = ReplayRequest(
        version=4,
        probes=folder / "now",
        names=("random",),
        inputs=folder / "inputs",
        answers=folder / "answers",
    )
    return make_golden(request)


def test_rows_that_no_probe_holds_come_back_once_with_their_answers(tmp_path: Path) -> None:
    known, old, older = [1.0, 2.0], [3.0, 4.0], [5.0, 6.0]

    reply = replayed(tmp_path, [known], golden=[older], random=[known, old, older])

    assert reply.probe
    assert (reply.probe.name, reply.probe.rows, reply.left_out) == ("golden", 2, 0)
    assert load_arrays(tmp_path / "now" / "golden.npz")["x"].tolist() == [older, old]
    assert load_arrays(tmp_path / "answers" / "golden.npz")["y"].tolist() == [0, 1]


def test_nothing_is_replayed_twice(tmp_path: Path) -> None:
    reply = replayed(tmp_path, [["a"], ["bcd"]], words=[["bcd"], ["a"]])

    assert reply.probe is None
    assert not (tmp_path / "now" / "golden.npz").exists()


def test_rows_of_other_sizes_and_too_many_are_left_out_and_counted(tmp_path: Path) -> None:
    many = np.arange(160.0).reshape(80, 2)

    reply = replayed(tmp_path, [[-1.0, -1.0]], many=many, other=np.zeros((2, 3)))

    assert reply.probe
    assert (reply.probe.rows, reply.left_out) == (64, 17)  # the two equal rows count once


def test_rows_that_the_source_answers_otherwise_are_counted(tmp_path: Path) -> None:
    for name in ("now", "then"):
        (tmp_path / name).mkdir()
    answers = np.asarray([[3, 2, 1], [1, 2, 3], [0, 5, 1]], np.float32)
    moved = answers.copy()
    moved[0] += [0.25, 0, 0]
    moved[1] = [4, 2, 3]
    save_arrays(tmp_path / "then" / "random.npz", {"logits": answers})
    save_arrays(tmp_path / "now" / "random.npz", {"logits": moved})

    found, label = compare_source(
        SourceDriftRequest(
            recipe=recipe(), now=tmp_path / "now", then=tmp_path / "then", names=("random",)
        )
    ).outputs

    assert (found.output, found.rows, found.max_abs, found.changed) == ("logits", 3, 3.0, 1)
    assert (label.rows, label.max_abs) == (0, None)  # the last release had none
