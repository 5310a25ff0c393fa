"""Writing a torch.export program whose weights are larger than any protobuf may be.

python -m tests.support.large_program PATH: writes it, and prints how large its weights are. In
a process of its own, since it takes the memory of the whole model.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

INPUTS, WIDTH, LAYERS, OUTPUTS = 64, 8192, 9, 16


def main(path: Path) -> None:
    import torch
    from torch import nn

    sizes = [INPUTS, *[WIDTH] * (LAYERS + 1), OUTPUTS]
    layers: list[nn.Module] = []
    for number, (come, go) in enumerate(pairwise(sizes)):
        linear = nn.utils.skip_init(nn.Linear, come, go)
        _fill(linear, torch.Generator().manual_seed(number))
        layers += [linear, nn.ReLU()]
    network = nn.Sequential(*layers[:-1]).eval()
    rows = torch.export.Dim("rows")
    program = torch.export.export(network, (torch.rand(2, INPUTS),), dynamic_shapes=({0: rows},))
    torch.export.save(program, path)
    size = sum(each.numel() * each.element_size() for each in network.parameters())
    sys.stdout.write(str(size))


def _fill(linear: object, generator: object) -> None:
    """Fill a layer so that answers neither grow nor vanish on their way (He)."""
    import torch

    weight, bias = linear.weight, linear.bias  # type: ignore[attr-defined]
    deviation = (2 / weight.shape[1]) ** 0.5
    with torch.no_grad():
        weight.normal_(0, deviation, generator=generator)
        bias.uniform_(-0.1, 0.1, generator=generator)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
