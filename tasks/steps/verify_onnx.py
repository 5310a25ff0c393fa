"""Verifying an ONNX model: by the book, by its declared signature, and by running it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.child import report_progress
from tasks.domain.artifact import OnnxFacts, TensorSpec
from tasks.domain.compatibility import check_fits, provider_notes
from tasks.domain.diagnosis import Optimisation
from tasks.domain.errors import SignatureMismatchError, VerificationError
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.runners.onnxruntime_runner import MODEL, open_session, run_session, short
from tasks.steps.canonical import canonical_of
from tasks.steps.draw import draw_inputs
from tasks.steps.onnx_file import (
    DTYPES,
    Proto,
    check_domains,
    check_external_data,
    check_inference_mode,
    check_opset,
    facts_of,
    parse,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.artifact import Dim

_BATCHES: dict[Optimisation, tuple[int, ...]] = {"off": (1, 3), "all": (1, 2, 3, 8)}
"""Batch sizes by level of graph optimisation. Without it, where kernels are slow, two sizes show
whether the file itself has a batch written into it; with it, all are run."""


class VerifyOnnxRequest(Value):
    """What is to be verified."""

    recipe: Recipe
    model: Path
    """The ``.onnx`` file, or its folder; external data stand beside it."""


class VerifyOnnxReply(Value):
    """What was checked, and what the file is."""

    checks: tuple[str, ...]
    facts: OnnxFacts
    notes: tuple[str, ...] = ()


def verify_onnx(request: VerifyOnnxRequest) -> VerifyOnnxReply:
    """Hold an ONNX file to its format, to the recipe's claims and to ONNX Runtime.

    The file is parsed once, and let go before ONNX Runtime reads it.

    Raises:
        VerificationError: The file is broken, or no model for inference at the asked opset.
        SignatureMismatchError: Its inputs or outputs are not the declared ones, or not for
            every batch size.
    """
    recipe = request.recipe
    where = f"{recipe.name}: verify"
    path = request.model / MODEL if request.model.is_dir() else request.model
    report_progress(0.0, "reading the file")
    facts, checks, notes = _inspect(where, recipe, path)
    shapes = {}
    for position, (level, batches) in enumerate(_BATCHES.items()):
        report_progress(0.3 + 0.35 * position, f"running, graph optimisation {level}")
        shapes[level] = _run(where, recipe, path, level, batches)
    for rows, plain in shapes["off"].items():
        if plain != shapes["all"][rows]:
            message = (
                f"{where}: the shapes of the answers depend on graph optimisation (expected "
                f"{plain}, got {shapes['all'][rows]}). Export it with another converter or opset."
            )
            raise VerificationError(message)
    ran = "ran at batch 1, 2, 3 and 8 with graph optimisation all, at 1 and 3 with it off"
    return VerifyOnnxReply(checks=(*checks, _runtime(), ran), facts=facts, notes=notes)


def _runtime() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}: loads with graph optimisation off and all"


def _inspect(
    where: str, recipe: Recipe, path: Path
) -> tuple[OnnxFacts, tuple[str, ...], tuple[str, ...]]:
    """Return facts, checks and notes of the file as such."""
    model = parse(where, path)
    external = check_external_data(where, model, path.parent)
    _check_format(where, path)
    canonical, _ = canonical_of(where, model, path.parent)
    facts = facts_of(model).model_copy(update={"canonical": canonical})
    check_opset(where, facts, recipe.opset)
    fits = check_fits(where, recipe.serve, facts)
    notes = check_domains(where, model) + provider_notes(recipe.serve, recipe.device, facts)
    check_inference_mode(where, model)
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    plain = recipe.signature.plain
    _check_side(where, "input", plain.inputs, inputs)
    _check_side(where, "output", plain.outputs, list(model.graph.output))
    domains = ", ".join(f"{domain} {version}" for domain, version in facts.opsets.items())
    return (
        facts,
        (
            "onnx.checker full_check, with strict shape inference",
            f"operator sets as asked: {domains}",
            f"external data complete: {', '.join(external)}" if external else "one file",
            "no node in training mode",
            *fits,
            f"signature as declared: {plain}",
        ),
        notes,
    )


def _check_format(where: str, path: Path) -> None:
    """Let ONNX's own checker read the file; its full check infers every shape, strictly."""
    import onnx.checker
    from onnx.shape_inference import InferenceError

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, InferenceError) as error:
        message = (
            f"{where}: onnx.checker refuses {path.name}: {short(error)}. Export it with another "
            "converter or another opset."
        )
        raise VerificationError(message) from error


def _check_side(where: str, side: str, declared: tuple[TensorSpec, ...], real: list[Proto]) -> None:
    """Compare names in their order, then each tensor's dtype and shape."""
    expected, got = [each.name for each in declared], [each.name for each in real]
    if expected != got:
        message = (
            f"{where}: the {side}s' names or their order are not the declared ones (expected "
            f"{', '.join(expected)}, got {', '.join(got) or 'none'}). Change the recipe's "
            "signature, or let the converter name them."
        )
        raise SignatureMismatchError(message)
    for spec, value in zip(declared, real, strict=True):
        if not value.type.HasField("tensor_type"):
            message = (
                f"{where}: {side} '{spec.name}' is a {value.type.WhichOneof('value')} (expected a "
                "tensor). Export the model without sequences or maps."
            )
            raise SignatureMismatchError(message)
        _check_tensor(where, side, spec, value.type.tensor_type)


def _check_tensor(where: str, side: str, spec: TensorSpec, real: Proto) -> None:
    dtype = DTYPES.get(real.elem_type, f"type {real.elem_type}")
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in real.shape.dim
    )
    written = f"{dtype}[{', '.join(map(str, shape))}]"
    wanted = str(spec).removeprefix(f"{spec.name} ")
    if written == wanted:
        return
    if dtype != spec.dtype or len(shape) != len(spec.shape):
        hint = "Change it in the recipe, or let the converter cast."
    else:
        axis = next(i for i, pair in enumerate(zip(shape, spec.shape, strict=True))
                    if pair[0] != pair[1])  # fmt: skip
        hint = _axis_hint(axis, shape[axis], spec.shape[axis])
    message = (
        f"{where}: {side} '{spec.name}' is not as declared (expected {wanted}, got {written}). "
        f"{hint}"
    )
    raise SignatureMismatchError(message)


def _axis_hint(axis: int, got: int | str, expected: Dim) -> str:
    if isinstance(expected, str) and isinstance(got, int):
        return f"Export with axis {axis} dynamic, under the name '{expected}'."
    if isinstance(expected, str):
        return f"Let the converter call axis {axis} '{expected}'."
    return f"Change axis {axis} in the recipe, or export with that size."


def _run(
    where: str, recipe: Recipe, path: Path, level: Optimisation, batches: tuple[int, ...]
) -> dict[int, list[list[int]]]:
    """Run batches on inputs from the declared domain; return the answers' shapes by their rows."""
    session = open_session(where, path, "cpu", level)
    rng = np.random.default_rng(recipe.parity.seed)
    shapes = defaultdict(list)
    for rows in batches:
        inputs = draw_inputs(recipe, rows, rng)
        place = f"{where}: batch {rows}, graph optimisation {level}"
        try:
            answers = run_session(session, inputs)
        except Exception as error:
            if rows == batches[0]:
                message = (
                    f"{place}: does not run: {short(error)}. Export it with another converter."
                )
                raise VerificationError(message) from error
            message = (
                f"{place}: does not run, though batch 1 does: {short(error)}. A batch size is "
                "written into the graph: export with a dynamic batch and an example batch of 2."
            )
            raise SignatureMismatchError(message) from error
        sizes = _axis_sizes(recipe, inputs)
        for spec in recipe.signature.outputs:
            _check_answer(place, spec, answers[spec.name], sizes)
            shapes[rows].append(list(answers[spec.name].shape))
    return shapes


def _axis_sizes(recipe: Recipe, inputs: dict[str, NDArray[np.generic]]) -> dict[str, int]:
    return {
        name: inputs[spec.name].shape[axis]
        for spec in recipe.signature.inputs
        for axis, name in spec.dynamic_axes.items()
    }


def _check_answer(
    place: str, spec: TensorSpec, answer: NDArray[np.generic], sizes: dict[str, int]
) -> None:
    """Hold an answer to its declaration; an axis that no input has may take any size."""
    expected = [sizes.get(dim, "any") if isinstance(dim, str) else dim for dim in spec.shape]
    fits = len(expected) == answer.ndim and all(
        want in {"any", size} for want, size in zip(expected, answer.shape, strict=True)
    )
    if not fits:
        message = (
            f"{place}: output '{spec.name}' has another shape than declared (expected "
            f"{expected}, got {list(answer.shape)}). Export with a dynamic batch, or change the "
            "recipe."
        )
        raise SignatureMismatchError(message)
    dtype = "string" if answer.dtype.kind == "U" else str(answer.dtype)
    if dtype != spec.dtype:
        message = (
            f"{place}: output '{spec.name}' has another dtype than declared (expected "
            f"{spec.dtype}, got {dtype}). Change the recipe, or let the converter cast."
        )
        raise SignatureMismatchError(message)
