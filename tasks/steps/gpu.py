"""Can a framework use a GPU on this machine? Asked before a stage begins that needs one."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.domain.errors import ReleaseError
from tasks.domain.value import Value
from tasks.gpus import gpu_is_there
from tasks.isolation import Family
from tasks.runners.onnxruntime_runner import MODEL, PROVIDERS, open_session, short

_DRIVER = (
    "Start the worker on a machine with an NVIDIA GPU and its driver ('nvidia-smi' must show it), "
    "and in a container give it the device."
)
_EXTRA = "Install the extra 'gpu' in place of 'cpu' there (pip install -r requirements/gpu.txt)."


_NO_TENSORFLOW = (
    "The extra 'gpu' brings CUDA 13, for torch and ONNX Runtime; TensorFlow is built for CUDA 12, "
    "and the two cannot be in one environment. Give the recipe device 'cpu', or targets [onnx]; "
    "docs/machines/routing.md."
)


class LookRequest(Value):
    """Which framework is asked."""

    family: Family


class Look(Value):
    """What it answers."""

    usable: bool
    expected: str
    found: str
    """Versions, providers and devices, in words."""
    remedy: str


def look(request: LookRequest) -> Look:
    """Ask the framework of ``request.family`` whether it can use a GPU."""
    match request.family:
        case Family.TORCH:
            seen = _torch()
        case Family.TENSORFLOW | Family.TENSORFLOW_LEGACY:
            seen = _tensorflow()
        case _:
            seen = _onnxruntime()
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "(not set)")
    return seen.model_copy(update={"found": f"{seen.found}, CUDA_VISIBLE_DEVICES {devices}"})


def _torch() -> Look:
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return Look(
        usable=torch.cuda.is_available(),
        expected="a GPU that torch can use",
        found=f"torch {torch.__version__} {built}, {torch.cuda.device_count()} GPUs",
        remedy=_DRIVER if torch.version.cuda else f"Install torch built for CUDA. {_DRIVER}",
    )


def _tensorflow() -> Look:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    cuda = tf.sysconfig.get_build_info().get("cuda_version")
    built = f"built for CUDA {cuda}" if cuda else "without CUDA"
    return Look(
        usable=bool(gpus),
        expected="a GPU that TensorFlow can use",
        found=f"tensorflow {tf.__version__} {built}, {len(gpus)} GPUs",
        remedy=_NO_TENSORFLOW,
    )


def _onnxruntime() -> Look:
    import onnxruntime

    providers, there = onnxruntime.get_available_providers(), gpu_is_there()
    listed = PROVIDERS["cuda"] in providers
    # the GPU build lists CUDA without a GPU, and without CUDA's libraries: a session must be asked
    against = _against_cuda() if listed else ""
    return Look(
        usable=listed and not against,
        expected="CUDAExecutionProvider and a GPU",
        found=(
            f"onnxruntime {onnxruntime.__version__} with {', '.join(providers)}, "
            f"{'a GPU' if there else 'no GPU'}{f', {against}' if against else ''}"
        ),
        remedy=" ".join(
            words
            for words, fits in ((_EXTRA, not listed or there), (_DRIVER, listed or not there))
            if fits
        ),
    )


def _against_cuda() -> str:
    """Open a session of one operator on CUDA; return why it does not run there, else nothing."""
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "look", [x], [y])
    opset = helper.make_opsetid("", 17)
    with TemporaryDirectory() as folder:
        path = Path(folder, MODEL)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
        try:
            open_session("look", path, "cuda")
        except ReleaseError as error:
            return f"and a session of one operator says: {short(error)}"
    return ""
