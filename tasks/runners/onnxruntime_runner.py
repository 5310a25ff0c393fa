"""Running ONNX in ONNX Runtime, on the device that was asked for and on no other."""

from __future__ import annotations

import os
import re
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from tasks.domain.artifact import ModelSignature, TensorSpec
from tasks.domain.errors import ConfigurationError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.domain.artifact import DType
    from tasks.domain.diagnosis import Optimisation
    from tasks.domain.recipe import Recipe
    from tasks.runners import Device

Session: TypeAlias = Any
"""An ``onnxruntime.InferenceSession``; the package has no types."""
_Node: TypeAlias = Any
"""An ``onnxruntime.NodeArg``."""

MODEL = "model.onnx"
PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_PROVIDER_OPTIONS: dict[Device, dict[str, str]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}
"""TF32, CUDA's default, keeps 10 bits of a float32's 23: no parity could be proven with it.
Source: onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html."""
_LEVELS: dict[Optimisation, str] = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "all": "ORT_ENABLE_ALL",
}
_MOST_THREADS = 8
"""Small batches gain nothing beyond, and the other models of a run want cores too."""

DTYPES: dict[str, DType] = {
    "tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64",
    "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32",
    "tensor(int64)": "int64", "tensor(uint8)": "uint8", "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32", "tensor(uint64)": "uint64", "tensor(bool)": "bool",
    "tensor(string)": "string",
}  # fmt: skip
"""ONNX Runtime's names of types. Source: onnxruntime/core/framework/data_types.cc."""


def check_available(device: Device, available: Sequence[str]) -> str:
    """Return the execution provider for ``device``.

    Raises:
        ConfigurationError: The installed ONNX Runtime was built without it.
    """
    wanted = PROVIDERS[device]
    if wanted in available:
        return wanted
    found = ", ".join(available) or "none"
    message = (
        f"onnxruntime: device '{device}' needs {wanted} (expected it among the providers, got "
        f"{found}). Install onnxruntime-gpu in place of onnxruntime, or use device 'cpu'."
    )
    raise ConfigurationError(message)


def load_cuda() -> str:
    """Load CUDA and cuDNN, as the packages of the extra ``gpu`` bring them.

    They lie where the linker does not look; where torch is in the process they are loaded with
    it, and a process of ONNX Runtime's own has no torch.

    Returns:
        What was not found, in ONNX Runtime's words; empty if nothing was missing.
    """
    import onnxruntime

    said = StringIO()
    with redirect_stdout(said):  # it prints what it misses, and raises nothing
        onnxruntime.preload_dlls()
    return short(said.getvalue())


def check_chosen(device: Device, chosen: Sequence[str], missing: str = "") -> None:
    """Make sure that a session runs where it was asked to.

    The GPU build lists CUDA as available without a GPU too, and then falls back to the CPU in
    silence, even where CUDA alone is asked for: only the session itself knows.

    Args:
        device: What was asked for.
        chosen: The session's own providers.
        missing: What of CUDA was not found, as ``load_cuda`` returns it.

    Raises:
        ConfigurationError: It runs elsewhere.
    """
    if list(chosen[:1]) == [PROVIDERS[device]]:
        return
    got = ", ".join(chosen) or "none"
    message = (
        f"onnxruntime: the session does not run on '{device}' (expected {PROVIDERS[device]} "
        f"first, got {got}{f'; {missing}' if missing else ''}). Check that 'nvidia-smi' shows a "
        "GPU and that requirements/gpu.txt is installed, or use device 'cpu'."
    )
    raise ConfigurationError(message)


def thread_count() -> int:
    """Return how many threads one operator may use: the cores we may run on, up to eight."""
    return max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0))))


def open_session(
    where: str, model: Path, device: Device = "cpu", optimisation: Optimisation = "all"
) -> Session:
    """Load an ONNX file, with its external data from beside it.

    Args:
        where: The first words of an error.
        model: The file.
        device: Where to run; nothing falls back.
        optimisation: How far ONNX Runtime may rewrite the graph.

    Raises:
        ConfigurationError: ``device`` is not there.
        VerificationError: ONNX Runtime refuses the file.
    """
    import onnxruntime

    provider = check_available(device, onnxruntime.get_available_providers())
    missing = load_cuda() if device == "cuda" else ""
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = getattr(levels, _LEVELS[optimisation])
    options.intra_op_num_threads = thread_count()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: a wrong shape is told by us, in our own words
    try:
        session = onnxruntime.InferenceSession(
            str(model), options, [provider], [_PROVIDER_OPTIONS[device]]
        )
    except Exception as error:
        message = (
            f"{where}: {model.name}: ONNX Runtime {onnxruntime.__version__} refuses the model "
            f"(graph optimisation {optimisation}): {short(error)}. Export it with another "
            "converter or another opset."
        )
        raise VerificationError(message) from error
    check_chosen(device, session.get_providers(), missing)
    return session


def run_session(
    session: Session,
    inputs: Mapping[str, NDArray[np.generic]],
) -> dict[str, NDArray[np.generic]]:
    """Answer one batch by the session's own names; strings come and leave as ``<U``."""
    feed = {
        name: array.astype(object) if array.dtype.kind == "U" else array
        for name, array in inputs.items()
    }
    names = [each.name for each in session.get_outputs()]
    answers = session.run(names, feed)
    return {
        name: array.astype(np.str_) if array.dtype == object else array
        for name, array in zip(names, map(np.asarray, answers), strict=True)
    }


def short(error: BaseException | str, limit: int = 500) -> str:
    """Return an error, or what was printed, in one line without its trailing stop."""
    words = " ".join(str(error).split())
    return (words if len(words) <= limit else f"{words[:limit]} …").rstrip(". ")


class OnnxruntimeRunner:
    """An ONNX model in an ONNX Runtime session."""

    def __init__(self, recipe: Recipe, session: Session) -> None:
        self._recipe = recipe
        self._session = session

    @classmethod
    def load(
        cls, recipe: Recipe, folder: Path, device: Device, optimisation: Optimisation = "all"
    ) -> Self:
        """Load ``model.onnx`` from ``folder``.

        Raises:
            VerificationError: No file is there, or ONNX Runtime refuses it.
            ConfigurationError: ``device`` is not there.
        """
        path = folder / MODEL
        if not path.is_file():
            message = f"{recipe.name}: {MODEL} is not in its folder. Export the model anew."
            raise VerificationError(message)
        return cls(recipe, open_session(recipe.name, path, device, optimisation))

    @property
    def runtime(self) -> str:
        """What runs it, such as ``onnxruntime 1.32.0 CPUExecutionProvider (2 threads)``.

        On CUDA it says that TF32 is off, by the session's own options.
        """
        import onnxruntime

        threads = thread_count()
        counted = f"{threads} thread{'s' if threads > 1 else ''}"
        provider = self._session.get_providers()[0]
        if provider == PROVIDERS["cuda"]:
            tf32 = self._session.get_provider_options()[provider].get("use_tf32", "unknown")
            counted += f", TF32 {'off' if tf32 == '0' else tf32}"
        return f"onnxruntime {onnxruntime.__version__} {provider} ({counted})"

    def signature(self) -> ModelSignature:
        """Return what the file declares; an axis without a usable name is called ``unnamed``."""
        return ModelSignature(
            inputs=tuple(map(_spec, self._session.get_inputs())),
            outputs=tuple(map(_spec, self._session.get_outputs())),
        )

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Answer one batch.

        Raises:
            VerificationError: ONNX Runtime does not answer these inputs.
        """
        try:
            answers = run_session(self._session, inputs)
        except Exception as error:
            shapes = ", ".join(f"{name} {each.dtype}{list(each.shape)}"
                               for name, each in inputs.items())  # fmt: skip
            message = (
                f"{self._recipe.name}: ONNX Runtime does not answer {shapes}: {short(error)}. "
                "Check the recipe's signature against the model."
            )
            raise VerificationError(message) from error
        wanted = [each.name for each in self._recipe.signature.outputs]
        if missing := [name for name in wanted if name not in answers]:
            message = (
                f"{self._recipe.name}: the model has no output '{missing[0]}' (expected "
                f"{', '.join(wanted)}, got {', '.join(answers)}). Change the names in the recipe."
            )
            raise VerificationError(message)
        return {name: answers[name] for name in wanted}


def _spec(node: _Node) -> TensorSpec:
    if node.type not in DTYPES:
        message = (
            f"'{node.name}' is a {node.type} (expected a tensor). Export the model without ZipMap "
            "or sequences."
        )
        raise VerificationError(message)
    shape = tuple(_dim(each) for each in node.shape)
    return TensorSpec(name=node.name, dtype=DTYPES[node.type], shape=shape)


def _dim(dim: int | str | None) -> int | str:
    if isinstance(dim, int) and dim > 0:
        return dim
    return dim if isinstance(dim, str) and re.fullmatch(r"[a-z][a-z0-9_]*", dim) else "unnamed"
