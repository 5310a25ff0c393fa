"""Small seeded networks and estimators, built and saved inside a child process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.domain.recipe import Recipe
from tasks.domain.value import Value

CLASSES = 6


class NetRequest(Value):
    """Which source model to build, for which recipe."""

    net: str
    recipe: Recipe
    folder: Path


class Built(Value):
    """Nothing to say."""


def build_torch(request: NetRequest) -> Built:
    """Save a network as ``program.pt2``, with random statistics, weights and biases."""
    import torch

    from tasks.converters.torch_dynamo import _dynamic_shapes
    from tasks.runners.torch_runner import example_inputs
    from tasks.sources.torch_program import EXPORTED

    torch.manual_seed(7)
    network = {"picture": _picture, "text": _text}[request.net]()
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if "bias" in name:
                tensor.uniform_(-0.8, 0.8)
            elif name.startswith("norm"):
                tensor.uniform_(0.5, 1.5)
        for name, tensor in network.named_buffers():
            if name.endswith("running_mean"):
                tensor.uniform_(-0.5, 0.5)
            elif name.endswith("running_var"):
                tensor.uniform_(0.3, 2.0)
    network.eval().requires_grad_(requires_grad=False)
    inputs = tuple(map(torch.from_numpy, example_inputs(request.recipe).values()))
    program = torch.export.export(network, inputs, dynamic_shapes=_dynamic_shapes(request.recipe))
    torch.export.save(program, request.folder / EXPORTED)
    return Built()


def _picture() -> Any:
    """Return convolutions, two kinds of pooling, resizing, padding, a clip and a head."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Picture(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
            self.norm1 = nn.BatchNorm2d(8)
            self.conv2 = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
            self.norm2 = nn.BatchNorm2d(8)
            self.most = nn.MaxPool2d(3, stride=2, ceil_mode=True)
            self.mean = nn.AvgPool2d(3, stride=1, padding=1)
            self.conv3 = nn.Conv2d(8, 12, 3, stride=2)
            self.hidden = nn.Linear(12 * 5 * 7, 16)
            self.head = nn.Linear(16, CLASSES)

        def forward(self, image: Any) -> tuple[Any, ...]:
            x = functional.relu(self.norm1(self.conv1(image)))
            x = functional.relu(self.norm2(self.conv2(x)))
            x = self.mean(self.most(x))
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = functional.interpolate(x, scale_factor=0.5, mode="nearest")
            x = functional.pad(x, (1, 1, 1, 1), mode="reflect")
            x = torch.clamp(self.conv3(x), 0.0, 1.5)
            x = functional.gelu(self.hidden(x.flatten(1)))
            logits = self.head(x) * 3
            coarse = torch.round(logits).argmax(1)
            return logits, torch.softmax(logits, 1), logits.argmax(1), coarse

    return Picture()


def _text() -> Any:
    """Return an embedding, one attention block, an LSTM and a head."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Text(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(40, 16)
            self.places = nn.Parameter(torch.randn(1, 9, 16))
            self.norm1 = nn.LayerNorm(16)
            self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
            self.out = nn.Linear(16, 16)
            self.norm2 = nn.LayerNorm(16, eps=1e-3)
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
            self.lstm = nn.LSTM(16, 12, batch_first=True)
            self.head = nn.Linear(12, CLASSES)

        def forward(self, tokens: Any) -> tuple[Any, ...]:
            x = self.words(tokens) + self.places
            y = self.norm1(x)
            query, key, value = self.query(y), self.key(y), self.value(y)
            share = torch.softmax(query @ key.transpose(1, 2) * 0.25, -1)
            x = x + self.out(share @ value)
            x = x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))
            states, _ = self.lstm(x)
            last = states[:, -1] * 4
            return self.head(last), torch.tanh(last)

    return Text()
