"""Running a source model in torch itself: the reference that every candidate is held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tasks.domain.errors import ConfigurationError, SignatureMismatchError
from tasks.sources.networks import first_line, open_network, torch_device
from tasks.steps.axes import usual_sizes
from tasks.steps.draw import draw_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.domain.artifact import ModelSignature, TensorSpec
    from tasks.domain.recipe import Recipe
    from tasks.domain.signature import InputSpec
    from tasks.runners import Device

EXAMPLE_ROWS = 2
"""More than one: torch.export takes an axis of size one for a fixed one."""
_PICTURE_SIZES = (224, 256, 288, 320)
_AXIS_SIZES = (16, 24, 32, 40, 48, 56, 64, 72)


class TorchRunner:
    """A torch network in evaluation mode, in full float32 precision."""

    def __init__(self, recipe: Recipe, network: Any, device: Any) -> None:  # noqa: ANN401
        self.network = network
        """As it was opened: a module, TorchScript, or an exported program."""
        self._recipe = recipe
        self._device = device
        self._callable = _callable(network, device)

    @classmethod
    def load(cls, recipe: Recipe, folder: Path, device: Device) -> Self:
        """Open the source model in ``folder`` on ``device``.

        Raises:
            VerificationError: The files do not load, or the model is in training mode.
            ConfigurationError: ``device`` is not there.
        """
        import torch

        place = torch_device(device, recipe.name)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        return cls(recipe, open_network(recipe, folder), place)

    @classmethod
    def of(cls, recipe: Recipe, network: Any) -> Self:  # noqa: ANN401
        """Take a network that is in memory and in evaluation mode, on the CPU."""
        return cls(recipe, network, torch_device("cpu", recipe.name))

    @property
    def runtime(self) -> str:
        """Such as ``torch 2.14.1 cpu``."""
        import torch

        where = torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu"
        return f"torch {torch.__version__} {where}"

    def signature(self) -> ModelSignature | None:
        """Return ``None``: a torch network does not say what it accepts."""
        return None

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Answer one batch; inputs and outputs go by the recipe's order.

        Raises:
            SignatureMismatchError: The inputs, or the network's outputs, are not those that
                the recipe declares.
        """
        expected = [spec.name for spec in self._recipe.signature.inputs]
        if sorted(inputs) != sorted(expected):
            message = (
                f"{self._recipe.name}: inputs (expected {', '.join(expected)}, "
                f"got {', '.join(inputs) or 'none'})."
            )
            raise SignatureMismatchError(message)
        return self.named(self.answer([inputs[name] for name in expected]), inputs)

    def try_out(self, rows: int = EXAMPLE_ROWS) -> None:
        """Answer some rows drawn from the inputs' domains, to prove the recipe's signature.

        Raises:
            SignatureMismatchError: The network cannot take the inputs that the recipe declares,
                or answers otherwise than it declares.
        """
        self.run(example_inputs(self._recipe, rows))

    def answer(self, arrays: Sequence[NDArray[np.generic]]) -> Any:  # noqa: ANN401
        """Call the network, in inference mode; return what it returns.

        Raises:
            SignatureMismatchError: The network cannot take inputs of this shape or dtype.
        """
        import torch

        tensors = [torch.tensor(array, device=self._device) for array in arrays]
        try:
            with torch.inference_mode():
                return self._callable(*tensors)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
            given = ", ".join(f"{a.dtype}[{', '.join(map(str, a.shape))}]" for a in arrays)
            declared = ", ".join(map(str, self._recipe.signature.inputs))
            message = (
                f"{self._recipe.name}: the network does not take the recipe's inputs (expected "
                f"{declared}; got from torch for {given}: {_last_line(error)}). "
                "Correct signature.inputs in the recipe."
            )
            raise SignatureMismatchError(message) from error

    def named(
        self,
        answer: Any,  # noqa: ANN401
        inputs: Mapping[str, NDArray[np.generic]],
    ) -> dict[str, NDArray[np.generic]]:
        """Give an answer's tensors the recipe's names, after holding them to its signature.

        Raises:
            SignatureMismatchError: Their number, shapes or dtypes are not the declared ones.
        """
        specs = self._recipe.signature.outputs
        tensors = flattened(answer)
        sizes = _axis_sizes(self._recipe.signature.inputs, inputs)
        found = [_described(tensor) for tensor in tensors]
        if len(tensors) != len(specs) or not all(map(_fits, specs, tensors, [sizes] * len(specs))):
            message = (
                f"{self._recipe.name}: outputs (expected {', '.join(map(str, specs))}; "
                f"got {', '.join(found) or 'none'} for {sizes['batch']} rows). "
                "Correct signature.outputs in the recipe."
            )
            raise SignatureMismatchError(message)
        return {
            spec.name: tensor.detach().cpu().numpy()
            for spec, tensor in zip(specs, tensors, strict=True)
        }


def example_inputs(recipe: Recipe, rows: int = EXAMPLE_ROWS) -> dict[str, NDArray[np.generic]]:
    """Draw rows for each input from its domain, the same ones every time."""
    sizes = {"batch": rows}
    for spec in recipe.signature.inputs:
        _size(recipe, spec, sizes)
    return draw_inputs(recipe, rows, np.random.default_rng(0), sizes)


def flattened(answer: Any) -> list[Any]:  # noqa: ANN401
    """Return the tensors of tuples, lists and dictionaries, at any depth, in order."""
    import torch

    if isinstance(answer, torch.Tensor):
        return [answer]
    if isinstance(answer, Mapping):
        return flattened(list(answer.values()))
    if isinstance(answer, Iterable) and not isinstance(answer, str):
        return [tensor for each in answer for tensor in flattened(each)]
    return []


def _size(recipe: Recipe, spec: InputSpec, sizes: dict[str, int]) -> None:
    """Give axes that are free sizes of their own, so that none seem tied."""
    if spec.dtype == "string":
        message = f"{spec.name}: torch has no strings (expected numbers). Declare another dtype."
        raise ConfigurationError(message)
    usual = usual_sizes(recipe)
    offered = _PICTURE_SIZES if spec.layout else _AXIS_SIZES
    for name in spec.dynamic_axes.values():
        if name in recipe.signature.axes and name != "batch":
            sizes[name] = usual[name]
        sizes.setdefault(name, next(size for size in offered if size not in sizes.values()))


def _callable(network: Any, device: Any) -> Any:  # noqa: ANN401
    """Return what can be called, on ``device``."""
    import torch

    if isinstance(network, torch.export.ExportedProgram):
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            network = move_to_device_pass(network, device)
        return network.module()
    return network.to(device)


def _axis_sizes(
    specs: Sequence[InputSpec], inputs: Mapping[str, NDArray[np.generic]]
) -> dict[str, int]:
    return {
        name: inputs[spec.name].shape[axis]
        for spec in specs
        for axis, name in spec.dynamic_axes.items()
    }


def _described(tensor: Any) -> str:  # noqa: ANN401
    return f"{str(tensor.dtype).removeprefix('torch.')}[{', '.join(map(str, tensor.shape))}]"


def _fits(spec: TensorSpec, tensor: Any, sizes: Mapping[str, int]) -> bool:  # noqa: ANN401
    """Whether a tensor is as declared; an axis whose name no input has may be of any size."""
    shape = tuple(tensor.shape)
    wanted = (
        sizes.get(dim, size) if isinstance(dim, str) else dim
        for dim, size in zip(spec.shape, shape, strict=False)
    )
    dtype = str(tensor.dtype).removeprefix("torch.")
    return dtype == spec.dtype and len(shape) == len(spec.shape) and shape == tuple(wanted)


def _last_line(error: BaseException) -> str:
    """Return the line that says what is wrong: TorchScript writes its trace above it."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if lines and lines[0].startswith("The following operation failed"):
        return lines[-1][:300]
    return first_line(error)
