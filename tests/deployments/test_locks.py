"""The locks: one library is there for one CUDA, and the GPU's packages fit each other."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
CUDA = re.compile(r"^(nvidia-[a-z-]+?|cuda-toolkit)(?:-cu(\d+))?==", re.MULTILINE)
WITHOUT_A_SUFFIX = 13
"""Since CUDA 13, NVIDIA's packages are called ``nvidia-cublas``, not ``nvidia-cublas-cu13``."""


def cuda_majors(lock: Path) -> dict[str, set[int]]:
    """Return, for each of CUDA's libraries, for which CUDA a lock has it."""
    found = defaultdict(set)
    for library, suffix in CUDA.findall(lock.read_text()):
        found[library].add(int(suffix or WITHOUT_A_SUFFIX))
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda each: each.stem)
def test_no_library_is_there_for_two_versions_of_cuda(lock: Path) -> None:
    """Of cuDNN and NCCL both would write the same files: the one unpacked last would be used."""
    majors = cuda_majors(lock)

    assert {library: of for library, of in majors.items() if len(of) > 1} == {}
    assert len(set().union(*majors.values())) <= 1


def test_torch_and_onnxruntime_of_the_gpu_image_want_the_same_cuda() -> None:
    lock = ROOT / "requirements" / "gpu.txt"
    text = lock.read_text()

    assert cuda_majors(lock)["nvidia-cudnn"] == {WITHOUT_A_SUFFIX}
    assert re.search(r"^onnxruntime-gpu==1\.(3[1-9]|[4-9]\d)", text, re.MULTILINE)
    assert not re.search(r"^onnxruntime==", text, re.MULTILINE)
    for library in ("cublas", "cuda-runtime", "cuda-nvrtc", "cufft", "curand"):
        assert f"\nnvidia-{library}==" in text, library


def test_no_lock_names_a_host_and_each_package_has_its_digests() -> None:
    for lock in LOCKS:
        packages = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)

        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", lock.read_text())
        assert all("--hash=sha256:" in each for each in packages if "==" in each), lock.name
