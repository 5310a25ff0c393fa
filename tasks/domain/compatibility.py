"""Which runtimes can read an ONNX file: what a recipe may ask for, and the rules it is held to.

What is checked: the operator sets' versions, the IR version, and that no operator is of a
domain that the runtime lacks. What cannot be known from here: whether a runtime has a kernel
for each operator and dtype on each execution provider; ``tasks.verify`` runs the file on the
ONNX Runtime that is installed, and on no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self, TypeAlias

from pydantic import Field, PositiveInt, model_validator

from tasks.domain.errors import VerificationError
from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.domain.artifact import OnnxFacts

Provider: TypeAlias = Literal["cpu", "cuda", "tensorrt"]
"""An execution provider of ONNX Runtime, in short."""


class OnnxruntimeVersion(Value):
    """ONNX Runtime, from one version on."""

    kind: Literal["onnxruntime"] = "onnxruntime"
    at_least: Annotated[str, Field(pattern=r"^\d+\.\d+(\.\d+)?$")]
    """The lowest version that must load the model, such as ``"1.17"``."""
    provider: Provider | None = None

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if _minor(self.at_least) < min(_ONNXRUNTIME):
            first, last = (_written(which(_ONNXRUNTIME)) for which in (min, max))
            message = (
                f"ONNX Runtime {self.at_least} is not known here (expected {first} or later; "
                f"known up to {last})"
            )
            raise ValueError(message)
        return self

    def __str__(self) -> str:
        """Write it as ``onnxruntime 1.17``."""
        return f"onnxruntime {self.at_least}"


class TritonRelease(Value):
    """NVIDIA Triton Inference Server, by its container release."""

    kind: Literal["triton"] = "triton"
    release: Annotated[str, Field(pattern=r"^\d\d\.\d\d$")]
    """Such as ``"24.08"``."""
    provider: Provider | None = None

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.release not in _TRITON:
            message = (
                f"Triton {self.release} is not known here (expected one of {min(_TRITON)} to "
                f"{max(_TRITON)}). For another one, name its ONNX Runtime: kind 'onnxruntime'"
            )
            raise ValueError(message)
        return self

    def __str__(self) -> str:
        """Write it as ``triton 24.08 (onnxruntime 1.18)``."""
        return f"triton {self.release} (onnxruntime {_TRITON[self.release]})"


class OnnxReader(Value):
    """Any other reader of ONNX, by the highest versions that it reads."""

    kind: Literal["onnx"] = "onnx"
    opset_at_most: PositiveInt | None = None
    ir_at_most: Annotated[int, Field(ge=3)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.opset_at_most is None and self.ir_at_most is None:
            message = "says nothing (expected opset_at_most, ir_at_most or both)"
            raise ValueError(message)
        return self

    def __str__(self) -> str:
        """Write it as ``the declared reader``."""
        return "the declared reader of ONNX"


Runtime: TypeAlias = Annotated[
    OnnxruntimeVersion | TritonRelease | OnnxReader, Field(discriminator="kind")
]
"""What a released model must be served by."""


class Ceiling(NamedTuple):
    """The highest versions that a runtime reads; ``None``: not known to be limited."""

    opset: int | None
    ml: int | None
    """Of the domain ``ai.onnx.ml``."""
    ir: int | None


_ONNXRUNTIME: dict[tuple[int, int], Ceiling] = {
    (1, 12): Ceiling(17, 3, 8),
    (1, 13): Ceiling(17, 3, 8),
    (1, 14): Ceiling(18, 3, 8),
    (1, 15): Ceiling(19, 3, 9),
    (1, 16): Ceiling(19, 3, 9),
    (1, 17): Ceiling(20, 4, 9),
    (1, 18): Ceiling(21, 5, 10),
    (1, 19): Ceiling(21, 5, 10),
    (1, 20): Ceiling(21, 5, 10),
    (1, 21): Ceiling(22, 5, 10),
    (1, 22): Ceiling(22, 5, 10),
    (1, 23): Ceiling(23, 5, 11),
    (1, 24): Ceiling(25, 5, 13),
    **{(1, minor): Ceiling(26, 5, 13) for minor in range(25, 32)},
    (1, 32): Ceiling(28, 5, 14),
}
"""By minor version. 1.12 to 1.14 are from https://onnxruntime.ai/docs/reference/compatibility.html.
From 1.15 on each was measured: models of one node were loaded in the released wheel for Linux, at
rising versions until it refused. The page, which ends at 1.20, is lower there in two places (IR 8
for 1.15; ai.onnx.ml 4 for 1.18 to 1.20)."""

_TRITON = {
    "24.04": "1.17", "24.05": "1.18", "24.06": "1.18", "24.07": "1.18", "24.08": "1.18",
    "24.09": "1.19", "24.10": "1.19", "24.11": "1.19", "24.12": "1.20", "25.01": "1.20",
    "25.02": "1.20", "25.03": "1.21", "25.04": "1.21", "25.05": "1.22", "25.06": "1.22",
    "25.07": "1.22", "25.08": "1.23", "25.09": "1.23", "25.10": "1.23", "25.11": "1.23",
    "25.12": "1.23", "26.01": "1.23", "26.02": "1.24", "26.03": "1.24", "26.04": "1.24",
    "26.05": "1.24", "26.06": "1.24", "26.07": "1.27", "26.08": "1.28",
}  # fmt: skip
"""ONNX Runtime of each release. Source: "ONNX Runtime Versions" in
https://github.com/triton-inference-server/server/blob/main/docs/introduction/compatibility.md."""

_LEAST_IR = {
    9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9,
    21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13, 27: 13, 28: 14,
}  # fmt: skip
"""The IR version that came with each opset. Source: ``onnx.helper.VERSION_TABLE``."""

_OUTSIDE = "com.microsoft."
"""Operators of ONNX Runtime's own, which no other reader has."""


def ceiling_of(runtime: Runtime) -> Ceiling:
    """Return the highest versions that a runtime reads.

    An ONNX Runtime that is newer than the table reads at least what the newest known one does:
    newer versions run all models that prior ones ran (the page cited above).
    """
    match runtime:
        case OnnxruntimeVersion():
            return _ONNXRUNTIME[min(_minor(runtime.at_least), max(_ONNXRUNTIME))]
        case TritonRelease():
            return _ONNXRUNTIME[_minor(_TRITON[runtime.release])]
        case OnnxReader():
            return Ceiling(runtime.opset_at_most, None, runtime.ir_at_most)


def highest_opset(serve: Iterable[Runtime]) -> int:
    """Return the highest opset that all runtimes read, 28 where none sets a limit."""
    return min((_highest(ceiling_of(each)) for each in serve), default=max(_LEAST_IR))


def _highest(ceiling: Ceiling) -> int:
    opset, _, ir = ceiling
    fitting = [
        each
        for each, least in _LEAST_IR.items()
        if (opset is None or each <= opset) and (ir is None or least <= ir)
    ]
    return max(fitting, default=min(_LEAST_IR) - 1)


def opset_fault(serve: Sequence[Runtime], opset: int) -> str | None:
    """Say why an opset does not fit the runtimes, and which one would; ``None`` if it does."""
    highest = highest_opset(serve)
    if opset <= highest:
        return None
    which = next(each for each in serve if _highest(ceiling_of(each)) < opset)
    reads = _highest(ceiling_of(which))
    return f"{_too_high(which, 'opset', opset, reads)}. Opset {highest} would fit"


def check_fits(where: str, serve: Sequence[Runtime], facts: OnnxFacts) -> tuple[str, ...]:
    """Hold an ONNX file to the runtimes that it must be served by, and return what was checked.

    Raises:
        VerificationError: It does not fit one of them; the message names each misfit and the
            opset that would fit them all.
    """
    faults = [fault for runtime in serve for fault in _misfits(runtime, facts)]
    if faults:
        highest = highest_opset(serve)
        advice = (
            f"recipe.opset {highest} would fit"
            if facts.opsets.get("ai.onnx", 0) > highest
            else "Use another converter, or declare a newer runtime"
        )
        message = f"{where}: does not fit 'serve': {'; '.join(faults)}. {advice}."
        raise VerificationError(message)
    return tuple(f"fits {each}: {_room(each, facts)}" for each in serve)


def _misfits(runtime: Runtime, facts: OnnxFacts) -> list[str]:
    return [
        _too_high(runtime, name, got, most)
        for name, got, most in _measures(runtime, facts)
        if most is not None and got > most
    ] + [
        f"{runtime} has no operators of {_OUTSIDE.rstrip('.')} (got {name})"
        for name in facts.operators
        if isinstance(runtime, OnnxReader) and name.startswith(_OUTSIDE)
    ]


def _measures(runtime: Runtime, facts: OnnxFacts) -> tuple[tuple[str, int, int | None], ...]:
    ceiling = ceiling_of(runtime)
    return (
        ("opset", facts.opsets.get("ai.onnx", 0), ceiling.opset),
        ("ai.onnx.ml opset", facts.opsets.get("ai.onnx.ml", 0), ceiling.ml),
        ("IR version", facts.ir_version, ceiling.ir),
    )


def _room(runtime: Runtime, facts: OnnxFacts) -> str:
    return ", ".join(
        f"{name} {got} of at most {most}"
        for name, got, most in _measures(runtime, facts)
        if most is not None and got
    )


def _too_high(runtime: Runtime, name: str, got: int, most: int) -> str:
    field = {"opset": "opset", "ai.onnx.ml opset": "ml", "IR version": "ir"}[name]
    able = [
        version
        for version, ceiling in _ONNXRUNTIME.items()
        if (getattr(ceiling, field) or 0) >= got
    ]
    needs = f"onnxruntime >= {_written(min(able))}" if able else "a runtime not known here"
    return f"{runtime} reads {name} {most} at most (got {got}, which needs {needs})"


def provider_notes(serve: Iterable[Runtime], device: str, facts: OnnxFacts) -> tuple[str, ...]:
    """Say what was not proven of the execution providers that are wanted.

    That CUDA has no kernels for ``ai.onnx.ml`` is from ONNX Runtime's docs/OperatorKernels.md.
    """
    wanted = sorted(
        {each.provider for each in serve if not isinstance(each, OnnxReader) and each.provider}
        - {"cpu"}
    )
    trees = sorted(name for name in facts.operators if name.startswith("ai.onnx.ml."))
    notes = []
    for provider in wanted:
        proven = provider == "cuda" and device in {"cuda", "both"}
        if not proven:
            notes.append(
                f"execution provider {provider}: not run here (device: {device}); operators "
                "that have no kernel there run on the CPU"
            )
        if trees:
            notes.append(f"execution provider {provider}: runs {', '.join(trees)} on the CPU")
    return tuple(notes)


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _written(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
