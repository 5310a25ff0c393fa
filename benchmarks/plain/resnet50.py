"""What a tutorial would do: ResNet-50 to ONNX to TensorFlow in one script, compared by allclose.

No Prefect, no store, no child processes, no page to read. Run by ``benchmarks/end_to_end.py``
with a folder for the files and the number of rows to compare.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
import torchvision

from tasks.onnxtf.backend import load_backend  # onnx-tf as published no longer imports

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_OPSET = 17
_STARTED = time.perf_counter()


def main() -> int:
    """Convert, compare, and print the seconds of each step; return 1 where answers differ."""
    folder, rows = Path(sys.argv[1]), int(sys.argv[2])
    inputs = np.random.default_rng(0).normal(size=(rows, 3, 224, 224)).astype(np.float32)
    model = build()
    lap("model built")
    file = folder / "model.onnx"
    export(model, inputs[:2], file)
    lap("torch.onnx.export")
    expected = answers(inputs, lambda x: model(torch.from_numpy(x)).numpy())
    lap("PyTorch answered")
    onnx.checker.check_model(file, full_check=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    right = close(answers(inputs, lambda x: session.run(None, {"images": x})[0]), expected)
    lap("ONNX Runtime compared")
    load_backend().prepare(onnx.load(file)).export_graph(str(folder / "tf"))
    lap("onnx-tf")
    right &= close(answers(inputs, saved_model(folder / "tf")), expected)
    lap("TensorFlow compared")
    return 0 if right else 1


def build() -> Any:  # noqa: ANN401 - a torch module, which has no stubs here
    """Return ResNet-50 with random weights and BatchNorm statistics."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def export(model: Any, example: NDArray[np.float32], file: Path) -> None:  # noqa: ANN401
    """Write ``model`` as ONNX, with a dynamic batch."""
    torch.onnx.export(
        model,
        (torch.from_numpy(example),),
        str(file),
        opset_version=_OPSET,
        dynamo=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
    )


def saved_model(folder: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return a function that asks the SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures["serving_default"]

    def run(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = serve(images=tf.constant(rows))["logits"].numpy()
        return answer

    run.keep = loaded  # type: ignore[attr-defined] # its variables go with it
    return run


def answers(
    inputs: NDArray[np.float32], run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Run all rows, eight at a time."""
    with torch.inference_mode():
        return np.concatenate([run(inputs[i : i + 8]) for i in range(0, len(inputs), 8)])


def close(got: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Compare as tutorials do."""
    return np.allclose(got, expected, rtol=1e-3, atol=1e-5 * float(np.abs(expected).max()))


def lap(step: str) -> None:
    """Print how long the script has run, and what it has done."""
    print(f"{time.perf_counter() - _STARTED:6.1f} s  {step}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
