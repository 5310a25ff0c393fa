"""The steps of torch's own optimiser, so that each of them can be left out.

``torch.onnx.export(optimize=True)`` runs ``onnxscript.optimizer.optimize_ir`` and, at opset 23,
``onnx_fusions.fuse`` as one piece. Here are the same steps in the same order, by name; with all
of them the graph is torch's own, which ``tests/contract/test_torch_passes.py`` holds it to.

Source: onnxscript 0.7.2, ``onnxscript/optimizer/_optimizer.py`` and ``rewriter/__init__.py``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.domain.passes import PassRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_Model: TypeAlias = Any
"""An ``onnx_ir.Model``; the package is not followed."""
_Rule: TypeAlias = Any
"""A ``RewriteRule``."""

_RULES = (
    "no-op",
    "broadcast-to-matmul",
    "cast-constant-of-shape",
    "collapse-slices",
    "materialize-reshape-shape",
    "min-max-to-clip",
    "fuse-relus-clips",
    "basic-rules",
    "redundant-scatter-nd",
    "fuse-pad-into-conv",
    "fuse-batchnorm",
    "remove-optional-bias",
)
"""Modules of ``onnxscript.rewriter.rules.common``, in the optimiser's order."""

PASSES = (
    "inline",
    "fold-constants",
    *_RULES,
    "remove-unused",
    "lift-constants",
    "deduplicate-initializers",
    "common-subexpressions",
    "fusions-of-opset-23",
)

_ROUNDS = 2
_FOLDED_INPUT, _FOLDED_OUTPUT = 8192, 512 * 512
"""Elements up to which constants are folded. Source: ``_constant_folding.py``, the defaults."""


class _RaisedError(Exception):
    """A pass raised; the model may be half rewritten."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(name)
        self.name = name
        self.words = f"it raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def optimise(program: Any, names: Sequence[str]) -> tuple[PassRun, ...]:  # noqa: ANN401
    """Run the passes called ``names`` on a program that was exported with ``optimize=False``.

    A pass that raises is left out, and the others start again from the raw graph.

    Args:
        program: A ``torch.onnx.ONNXProgram``; its model is replaced.
        names: Some of ``PASSES``, in any order.
    """
    raw, failed = program.model, dict[str, str]()
    while chosen := [name for name in PASSES if name in names and name not in failed]:
        # the tensors are shared, so a copy costs no memory to speak of
        program.model = raw.clone()
        try:
            changed = _Optimiser(program.model, chosen).run()
        except _RaisedError as error:
            failed[error.name] = error.words
            continue
        return tuple(_run(name, changed.get(name), failed) for name in PASSES if name in names)
    program.model = raw
    return tuple(_run(name, None, failed) for name in names)


def _run(name: str, changed: bool | None, failed: dict[str, str]) -> PassRun:  # noqa: FBT001
    error = failed.get(name, "")
    stage = "exporter's optimisation"
    return PassRun(stage=stage, name=name, changed=False if error else changed, error=error)


class _Optimiser:
    """One run of the chosen passes over one model."""

    def __init__(self, model: _Model, chosen: Sequence[str]) -> None:
        self._model = model
        self._changed = dict.fromkeys(chosen, False)

    def run(self) -> dict[str, bool]:
        """Return which of the passes changed the model."""
        from onnx_ir.passes import common

        self._apply("inline", common.InlinePass)
        for _ in range(_ROUNDS):
            again = self._apply("fold-constants", _fold_constants)
            again = self._rewrite() or again
            again = self._apply("remove-unused", *_removers()) or again
            if not again:
                break
        self._apply("remove-unused", common.RemoveUnusedNodesPass)
        self._apply(
            "lift-constants", _lift_constants, common.LiftSubgraphInitializersToMainGraphPass
        )
        self._apply("deduplicate-initializers", common.DeduplicateInitializersPass)
        self._apply("common-subexpressions", common.CommonSubexpressionEliminationPass)
        # not among the names: without them the file of the others is not well-formed
        common.OutputFixPass()(self._model)
        common.NameFixPass()(self._model)
        self._fuse()
        return self._changed

    def _apply(self, name: str, *makers: Callable[[], Any]) -> bool:
        if name not in self._changed:
            return False
        try:
            changed: bool = (
                sum(maker()(self._model).modified for maker in makers) > 0
            )  # all of them run
        except Exception as error:
            raise _RaisedError(name, error) from error
        self._changed[name] |= changed
        return changed

    def _rewrite(self) -> bool:
        from onnxscript.rewriter import RewriteRuleSet

        rules: list[_Rule] = [
            _Watched(rule, name, self._changed)
            for name in _RULES
            if name in self._changed
            for rule in rules_of(name)
        ]
        try:
            return bool(rules and RewriteRuleSet(rules).apply_to_model(self._model))
        except _RaisedError:
            raise
        except Exception as error:
            # between two rules: the one that rewrote last is to blame
            raise _RaisedError(_Watched.last, error) from error

    def _fuse(self) -> None:
        from onnxscript.rewriter import onnx_fusions

        name = "fusions-of-opset-23"
        if name in self._changed:
            try:
                self._changed[name] = any(onnx_fusions.fuse(self._model).values())
            except Exception as error:
                raise _RaisedError(name, error) from error


class _Watched:
    """A rewrite rule that tells when it is used; to the rule set it is the rule itself."""

    last = _RULES[0]

    def __init__(self, rule: _Rule, name: str, changed: dict[str, bool]) -> None:
        self._rule, self._name, self._told = rule, name, changed

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._rule, name)

    def try_rewrite(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            rewritten = self._rule.try_rewrite(*args, **kwargs)
        except Exception as error:
            raise _RaisedError(self._name, error) from error
        if rewritten is not None:
            _Watched.last = self._name
            self._told[self._name] = True
        return rewritten


def rules_of(name: str) -> Iterator[_Rule]:
    """Yield the rewrite rules of one pass, in the optimiser's order."""
    path = f"onnxscript.rewriter.rules.common._{name.replace('-', '_')}"
    module = importlib.import_module(path)
    rules: Iterable[_Rule] = (
        module.basic_optimization_rules() if name == "basic-rules" else module.rules
    )
    yield from rules


def _fold_constants() -> Any:  # noqa: ANN401
    from onnxscript.optimizer import _constant_folding

    return _constant_folding.FoldConstantsPass(
        shape_inference=True, input_size_limit=_FOLDED_INPUT, output_size_limit=_FOLDED_OUTPUT
    )


def _lift_constants() -> Any:  # noqa: ANN401
    from onnx_ir.passes import common

    return common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)


def _removers() -> tuple[Callable[[], Any], ...]:
    from onnx_ir.passes import common

    return (
        common.RemoveUnusedNodesPass,
        common.RemoveUnusedFunctionsPass,
        common.RemoveUnusedOpsetsPass,
    )
