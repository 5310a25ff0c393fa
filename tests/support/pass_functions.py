"""What tests let the torch process do with the passes of torch's optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.domain.passes import PassRun
from tasks.domain.value import Value

NETS = ("resnet", "attention")


class Net(Value):
    """A small network to export."""

    name: str
    folder: Path = Path()
    opset: int = 18
    by_torch: bool = False
    passes: tuple[str, ...] | None = None
    raises: str = ""
    """A pass whose rules are made to raise."""


class Optimised(Value):
    """Which passes ran."""

    passes: tuple[PassRun, ...] = ()


class Rules(Value):
    """How many rules there are, and whether the passes cover them in order."""

    ours: int
    theirs: int
    same_order: bool


def optimise(request: Net) -> Optimised:
    """Export, and optimise by torch itself or pass by pass; write ``model.onnx``."""
    import torch

    from tasks.converters import torch_passes

    network, inputs = _network(request.name)
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        network, inputs, dynamo=True, verbose=False, optimize=request.by_torch,
        opset_version=request.opset, input_names=["x"], output_names=["y"],
        dynamic_shapes=({0: batch},),
    )  # fmt: skip
    runs: tuple[PassRun, ...] = ()
    if not request.by_torch:
        chosen = torch_passes.PASSES if request.passes is None else request.passes
        with _raising(request.raises):
            runs = torch_passes.optimise(program, chosen)
    program.save(request.folder / "model.onnx", external_data=False)
    return Optimised(passes=runs)


def _raising(name: str) -> Any:
    from contextlib import nullcontext
    from unittest import mock

    from tasks.converters import torch_passes

    if not name:
        return nullcontext()
    (rule, *_) = torch_passes.rules_of(name)
    return mock.patch.object(type(rule), "try_rewrite", _dividing(rule, type(rule).try_rewrite))


def _dividing(broken: Any, usual: Any) -> Any:
    def try_rewrite(self: Any, *args: Any, **kwargs: Any) -> Any:
        return 1 / 0 if self is broken else usual(self, *args, **kwargs)

    return try_rewrite


def count_rules(request: Net) -> Rules:
    """Hold the passes' rules against the optimiser's own."""
    from onnxscript import rewriter

    from tasks.converters import torch_passes

    del request
    names = [name for name in torch_passes.PASSES if name in torch_passes._RULES]
    ours = [rule for name in names for rule in torch_passes.rules_of(name)]
    theirs = list(rewriter._DEFAULT_REWRITE_RULES)
    kinds = [(each.name, type(each), str(each._target_pattern)) for each in ours]
    return Rules(
        ours=len(ours),
        theirs=len(theirs),
        same_order=kinds == [(r.name, type(r), str(r._target_pattern)) for r in theirs],
    )


def _network(name: str) -> tuple[Any, tuple[Any, ...]]:
    import torch
    from torch import nn

    torch.manual_seed(1)
    if name == "attention":
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        return layer.eval(), (torch.randn(2, 5, 16),)

    class Block(nn.Module):  # type: ignore[misc] # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
            self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
            for norm in self.norms:
                nn.init.normal_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.5, 2)

        def forward(self, x: Any) -> Any:
            y = self.norms[0](self.convs[0](x)).relu()
            return (self.norms[1](self.convs[1](y)) + x).relu().mean((2, 3)).reshape(x.shape[0], -1)

    return Block().eval(), (torch.randn(2, 4, 8, 8),)


def save_program(request: Net) -> Optimised:
    """Save the network as a ``torch.export`` program, ``program.pt2``."""
    import torch

    network, inputs = _network(request.name)
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, inputs, dynamic_shapes=({0: batch},))
    torch.export.save(program, request.folder / "program.pt2")
    return Optimised()
