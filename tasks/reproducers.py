"""Where a run keeps its reproducers until they are put aside with its reports."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.diagnosis import Diagnosis
    from tasks.locating import Located
    from tasks.shrinking import Shrinking

_FOLDER = "reproducers"


def with_culprit(diagnosis: Diagnosis, located: Located, run_folder: Path) -> Diagnosis:
    """Say in a diagnosis what was located, and keep the reproducer for the quarantine.

    Args:
        diagnosis: Which names the stage.
        located: What ``tasks.locating`` found; nothing found is said in words.
        run_folder: The run's own folder, where ``reproducer_files`` looks.
    """
    name = ""
    if located.folder is not None:
        name = f"reproducer-{diagnosis.candidate.folder}-{diagnosis.converter}"
        shutil.copytree(located.folder, run_folder / _FOLDER / name, dirs_exist_ok=True)
    return diagnosis.model_copy(
        update={
            "culprit": located.culprit,
            "nodes": located.nodes,
            "reproducer": name,
            "words": f"{diagnosis.words}. {located.words}",
        }
    )


def with_shrunk(diagnosis: Diagnosis, found: Shrinking, run_folder: Path) -> Diagnosis:
    """Add the shrunk input to a diagnosis, and keep its files for the quarantine."""
    name = f"shrunk-{diagnosis.candidate.folder}-{diagnosis.converter}"
    folder = run_folder / _FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    sides = {"inputs": found.inputs, "expected": found.expected, "got": found.got}
    for side, path in sides.items():
        if path is not None:
            shutil.copyfile(path, folder / f"{side}.npz")
    (folder / "shrunk.txt").write_text(f"{found.shrunk.words}\n")
    shrunk = found.shrunk.model_copy(update={"folder": name})
    return diagnosis.model_copy(update={"shrunk": shrunk})


def reproducer_files(diagnoses: tuple[Diagnosis, ...], run_folder: Path) -> dict[str, Path]:
    """Return the files of the diagnoses' reproducers by their place below the quarantine."""
    root = run_folder / _FOLDER
    return {
        str(path.relative_to(root)): path
        for each in diagnoses
        for name in (each.reproducer, each.shrunk.folder if each.shrunk else "")
        if name
        for path in sorted((root / name).rglob("*"))
        if path.is_file()
    }
