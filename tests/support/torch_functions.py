"""What tests let the torch process do: make programs, run models, convert with other limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tasks.arrays import load_arrays, save_arrays
from tasks.converters import ConvertReply, ConvertRequest, convert_function, onnx_weights
from tasks.domain.recipe import Recipe
from tasks.domain.value import Value


class Run(Value):
    """A model to run on the arrays of a file."""

    recipe: Recipe
    folder: Path
    inputs: Path
    answers: Path
    device: Literal["cpu", "cuda"] = "cpu"


class Ran(Value):
    """What ran it."""

    runtime: str


def run(request: Run) -> Ran:
    """Answer the rows of a file by the torch runner."""
    from tasks.runners.torch_runner import TorchRunner

    runner = TorchRunner.load(request.recipe, request.folder, request.device)
    save_arrays(request.answers, runner.run(load_arrays(request.inputs)))
    return Ran(runtime=runner.runtime)


class Program(Value):
    """A small program to save: a convolution, BatchNorm, dropout, and a nested answer."""

    path: Path
    form: Literal["script", "trace", "export", "checkpoint"]
    training: bool = False
    fixed_batch: bool = False
    nested: bool = False


class Saved(Value):
    """Nothing to tell."""


def save_program(request: Program) -> Saved:
    """Save a program whose weights depend on nothing but a fixed seed."""
    import torch

    torch.manual_seed(0)
    network = _network(nested=request.nested).train(mode=request.training)
    example = torch.rand(2, 1, 8, 8)
    match request.form:
        case "script":
            torch.jit.save(torch.jit.script(network), request.path)
        case "trace":
            traced = torch.jit.trace(network, (example,), check_trace=False, strict=False)
            torch.jit.save(traced, request.path)
        case "checkpoint":
            torch.save(network.state_dict(), request.path)
        case "export":
            free = None if request.fixed_batch else ({0: torch.export.Dim("rows")},)
            program = torch.export.export(network, (example,), dynamic_shapes=free)
            torch.export.save(program, request.path)
    return Saved()


def _network(*, nested: bool) -> Any:
    import torch
    from torch import nn

    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())
    body = nn.Sequential(*layers, nn.Linear(4 * 36, 3))
    nn.init.uniform_(body[1].running_var, 0.5, 2.0)
    if not nested:
        return body

    class Nested(nn.Module):  # type: ignore[misc] # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, images: Any) -> Any:
            scores = self.body(images)
            return {"scores": scores, "all": (torch.relu(scores), [scores.argmax(1)])}

    return Nested()


class Limited(Value):
    """A conversion that may write this much into one file."""

    converter: str
    convert: ConvertRequest
    one_file_bytes: int


def convert_within(request: Limited) -> ConvertReply:
    """Convert with another limit of one file."""
    usual = onnx_weights.ONE_FILE_BYTES
    onnx_weights.ONE_FILE_BYTES = request.one_file_bytes
    try:
        return convert_function(request.converter)(request.convert)
    finally:
        onnx_weights.ONE_FILE_BYTES = usual


class Weights(Value):
    """A checkpoint to look into."""

    path: Path


class Constant(Value):
    """The tensors of a checkpoint whose numbers are all alike."""

    names: tuple[str, ...]


def constant_tensors(request: Weights) -> Constant:
    """Name the tensors that a candidate could drop without a trace."""
    import torch

    weights = torch.load(request.path, weights_only=True)
    alike = (
        name
        for name, each in weights.items()
        if each.numel() > 1 and bool((each == each.flatten()[0]).all())
    )
    return Constant(names=tuple(alike))
