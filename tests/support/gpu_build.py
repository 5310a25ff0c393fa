"""The GPU build of ONNX Runtime where no GPU can be: the real package, but for what it finds.

As onnxruntime-gpu 1.31.1 was seen to: it lists CUDA whatever there is, prints what
``preload_dlls`` misses, and lets a session fall back to the CPU in silence where CUDA's
libraries were not loaded before, or there is no GPU.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import onnxruntime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class _Session:
    def __init__(self, path: str, options: Any, provider: str) -> None:
        self._session = onnxruntime.InferenceSession(path, options, [CPU])
        self._providers = [provider] if provider == CPU else [provider, CPU]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return self._providers


class GpuBuild(ModuleType):
    """Stands for the module ``onnxruntime``."""

    def __init__(self, *, gpu: bool, libraries: bool) -> None:
        super().__init__("onnxruntime")
        self._gpu = gpu
        self._libraries = libraries
        self.loaded = False

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", CUDA, CPU]

    def preload_dlls(self) -> None:
        self.loaded = self._libraries
        if not self._libraries:
            print("Failed to load libcublasLt.so.13: cannot open shared object file")  # noqa: T201

    def InferenceSession(  # noqa: N802 - its name
        self, path: str, options: Any, providers: list[str], _options: Any
    ) -> _Session:
        (wanted,) = providers
        works = wanted == CPU or (self._gpu and self.loaded)
        return _Session(path, options, wanted if works else CPU)
