"""Training a small torch network on the handwritten digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from tasks.arrays import save_arrays
from tasks.child import report_progress
from tasks.domain.errors import AcquisitionError, ConfigurationError
from tasks.domain.recipe import Recipe
from tasks.domain.sources import TorchTraining
from tasks.sources import HELD_OUT, AcquireReply, AcquireRequest
from tasks.sources.networks import save_weights, small_network, torch_device

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Rows(NamedTuple):
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


def acquire(request: AcquireRequest) -> AcquireReply:
    """Train the recipe's network; keep its weights and the rows that it did not see.

    On a CPU the same recipe gives the same weights on every run of one version of torch.

    Raises:
        ConfigurationError: The recipe's input does not hold a digit's 64 pixels, or its device
            is not there.
        AcquisitionError: The network stays below ``minimum_accuracy`` on the held-out rows.
        SignatureMismatchError: The network does not answer as the recipe declares.
    """
    from tasks.runners.torch_runner import TorchRunner

    recipe = request.recipe
    source = cast("TorchTraining", recipe.source)
    device = torch_device("cuda" if recipe.device == "cuda" else "cpu", recipe.name)
    seen, held_out = _split(recipe, source)
    with _repeatable(source.seed):
        network = small_network(source.network).to(device)
        _train(network, seen, source, device)
    network.eval().requires_grad_(requires_grad=False).to("cpu")
    runner = TorchRunner.of(recipe, network)
    runner.try_out()
    name = recipe.signature.inputs[0].name
    logits = runner.run({name: held_out.inputs})[recipe.signature.outputs[0].name]
    accuracy = float((logits.argmax(axis=1) == held_out.labels).mean())
    if accuracy < source.minimum_accuracy:
        message = (
            f"{recipe.name}: training ended below its mark (expected accuracy "
            f"{source.minimum_accuracy:.3f}, got {accuracy:.3f} on {len(held_out.labels)} held-out "
            "rows). Train for more epochs, or lower source.minimum_accuracy."
        )
        raise AcquisitionError(message)
    save_weights(network, request.folder)
    save_arrays(request.folder / HELD_OUT, {name: held_out.inputs, "labels": held_out.labels})
    return AcquireReply(metrics={"accuracy": accuracy})


def _split(recipe: Recipe, source: TorchTraining) -> tuple[_Rows, _Rows]:
    """Return rows to train on and rows to hold out, every digit alike in both."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    spec, *others = recipe.signature.inputs
    pixels, labels = load_digits(return_X_y=True)
    shape = spec.shape[1:]
    fixed = [dim for dim in shape if isinstance(dim, int)]
    size = int(np.prod(fixed))
    if others or len(fixed) != len(shape) or size != pixels.shape[1] or spec.dtype != "float32":
        message = (
            f"{recipe.name}: signature.inputs (expected one float32 input of "
            f"{pixels.shape[1]} pixels a row, got {', '.join(map(str, recipe.signature.inputs))})."
        )
        raise ConfigurationError(message)
    inputs = pixels.astype(np.float32).reshape(len(pixels), *fixed)
    parts = train_test_split(
        inputs,
        labels.astype(np.int64),
        test_size=source.test_fraction,
        random_state=source.seed,
        stratify=labels,
    )
    return _Rows(parts[0], parts[2]), _Rows(parts[1], parts[3])


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Make what torch does inside depend on ``seed`` alone, then put its settings back."""
    import torch

    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)  # sums in another order round otherwise
    torch.use_deterministic_algorithms(mode=True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def _train(network: Any, rows: _Rows, source: TorchTraining, device: Any) -> None:  # noqa: ANN401
    import torch

    inputs = torch.from_numpy(rows.inputs).to(device)
    labels = torch.from_numpy(rows.labels).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=source.learning_rate)
    network.train()
    for epoch in range(source.epochs):
        order = torch.randperm(len(inputs))
        loss = torch.zeros(())
        for batch in order.split(source.batch_size):
            if len(batch) == 1:
                continue  # BatchNorm has no variance to learn from one row
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
            loss.backward()
            optimiser.step()
        done = epoch + 1
        report_progress(done / source.epochs, f"epoch {done} of {source.epochs}, loss {loss:.4f}")
