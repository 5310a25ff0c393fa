"""Simplify an ONNX file: the passes that a recipe's ``simplify`` asks for, one after another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.domain.passes import PassRun, SimplifierPass
from tasks.domain.value import Value
from tasks.runners.onnxruntime_runner import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable

_Model: TypeAlias = Any
"""An ``onnx_ir.Model``; the package is not followed."""

_FOLDED_INPUT, _FOLDED_OUTPUT = 8192, 512 * 512
"""Elements up to which constants are folded. Source: onnxscript, ``_constant_folding.py``."""


class SimplifyRequest(Value):
    """Which file, and which passes in which order."""

    folder: Path
    """``model.onnx`` in it, and what it keeps beside it, are replaced."""
    passes: tuple[SimplifierPass, ...]


class SimplifyReply(Value):
    """What each pass did."""

    passes: tuple[PassRun, ...]


def simplify(request: SimplifyRequest) -> SimplifyReply:
    """Run the passes over ``model.onnx``; where none changes it, the file stays as it is.

    Weights beside the model are mapped, not read, unless a pass looks at them. A pass that raises
    is left out, and the others start again from the file.
    """
    failed: dict[str, str] = {}
    changed: dict[str, bool] = {}
    while chosen := [name for name in request.passes if name not in failed]:
        try:
            changed = _simplify(request.folder, chosen)
        except _RaisedError as error:
            failed[error.name] = error.words
            continue
        break
    return SimplifyReply(
        passes=tuple(
            PassRun(
                stage="simplifier",
                name=name,
                changed=changed.get(name, False),
                error=failed.get(name, ""),
            )
            for name in request.passes
        )
    )


class _RaisedError(Exception):
    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(name)
        self.name = name
        self.words = f"it raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _simplify(folder: Path, names: list[SimplifierPass]) -> dict[str, bool]:
    import onnx_ir

    model = onnx_ir.load(folder / MODEL)
    changed: dict[str, bool] = {}
    for name in names:
        try:
            changed[name] = sum(each(model).modified for each in _passes(name)) > 0  # all run
        except Exception as error:
            raise _RaisedError(name, error) from error
    if any(changed.values()):
        _write(model, folder)
    return changed


def _passes(name: SimplifierPass) -> list[Callable[[_Model], Any]]:
    import onnx_ir.passes.common

    common: Any = onnx_ir.passes.common  # not typed throughout
    match name:
        case "fold-constants":
            from onnxscript.optimizer import _constant_folding

            fold = _constant_folding.FoldConstantsPass(
                shape_inference=True,
                input_size_limit=_FOLDED_INPUT,
                output_size_limit=_FOLDED_OUTPUT,
            )
            return [fold, common.RemoveUnusedNodesPass()]
        case "eliminate-identity":
            return [common.IdentityEliminationPass()]
        case "common-subexpressions":
            return [common.CommonSubexpressionEliminationPass()]
        case "deduplicate-initializers":
            return [common.DeduplicateInitializersPass()]
        case "remove-unused":
            return [
                common.RemoveUnusedNodesPass(),
                common.RemoveUnusedFunctionsPass(),
                common.RemoveUnusedOpsetsPass(),
            ]


def _write(model: _Model, folder: Path) -> None:
    """Write the model with its weights outside, then move them in unless they are too large."""
    import onnx
    import onnx_ir

    from tasks.converters import onnx_weights

    scratch = folder / "simplified"
    scratch.mkdir()
    try:
        onnx_ir.save(model, scratch / MODEL, external_data=onnx_weights.EXTERNAL_DATA)
        proto = onnx.load(scratch / MODEL, load_external_data=False)
        made = scratch / "made"
        made.mkdir()
        onnx_weights.write_model(proto, scratch, made)
        (folder / onnx_weights.EXTERNAL_DATA).unlink(missing_ok=True)
        for path in made.iterdir():
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(scratch)
