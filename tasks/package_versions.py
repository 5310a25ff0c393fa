"""Which packages take part in a release, and their versions here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_TOOLS = (
    "onnx-conveyor", "prefect", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "skl2onnx",
    "scikit-learn", "torch", "torchvision", "onnxscript", "tensorflow", "keras", "tf-keras",
    "tf2onnx", "onnx-tf", "boto3", "model-signing",
)  # fmt: skip


def tool_versions() -> dict[str, str]:
    """Return the version of each package that may take part in a release and is installed."""
    versions = {}
    for name in _TOOLS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
