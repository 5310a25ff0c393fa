"""Can a framework use a GPU on this machine? Asked before a stage begins that needs one."""

from __future__ import annotations

import os

from tasks.domain.value import Value
from tasks.gpus import gpu_is_there
from tasks.isolation import Family

_DRIVER = (
    "Start the worker on a machine with an NVIDIA GPU and its driver ('nvidia-smi' must show it), "
    "and in a container give it the device."
)
_EXTRA = "Install the extra 'gpu' in place of 'cpu' there (pip install -r requirements/gpu.txt)."


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
    built = "built for CUDA" if tf.test.is_built_with_cuda() else "without CUDA"
    return Look(
        usable=bool(gpus),
        expected="a GPU that TensorFlow can use",
        found=f"tensorflow {tf.__version__} {built}, {len(gpus)} GPUs",
        remedy=f"{_EXTRA} {_DRIVER}",
    )


def _onnxruntime() -> Look:
    import onnxruntime

    # the GPU build lists CUDA without a GPU too, and then runs on the CPU in silence
    providers, there = onnxruntime.get_available_providers(), gpu_is_there()
    listed = "CUDAExecutionProvider" in providers
    return Look(
        usable=listed and there,
        expected="CUDAExecutionProvider and a GPU",
        found=(
            f"onnxruntime {onnxruntime.__version__} with {', '.join(providers)}, "
            f"{'a GPU' if there else 'no GPU'}"
        ),
        remedy=_DRIVER if listed else f"{_EXTRA}{'' if there else f' {_DRIVER}'}",
    )
