"""What both torch exporters share: the model and example to export, and a look at the result."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tasks.converters import ConvertRequest
from tasks.domain.artifact import TensorSpec
from tasks.domain.errors import ExportError
from tasks.domain.recipe import Recipe


@dataclass(frozen=True)
class Export:
    """A network that answered as its recipe says, and the inputs that it answered to."""

    network: Any
    """A module in evaluation mode that returns tensors, TorchScript, or an exported program."""
    inputs: tuple[Any, ...]
    """Two rows each, in the recipe's order."""
    input_names: list[str]
    output_names: list[str]


def prepare(request: ConvertRequest) -> Export:
    """Open the source model and let it answer once.

    Raises:
        SignatureMismatchError: It does not answer as the recipe declares.
        VerificationError: Its files do not load, or it is in training mode.
    """
    import torch

    from tasks.runners.torch_runner import TorchRunner, example_inputs

    recipe = request.recipe
    runner = TorchRunner.load(recipe, request.source, "cpu")
    arrays = example_inputs(recipe)
    answer = runner.answer(list(arrays.values()))
    outputs = runner.named(answer, arrays)
    network = runner.network
    if isinstance(network, torch.nn.Module) and network.training:
        message = f"{recipe.name}: the model is in training mode (expected inference)."
        raise ExportError(message)
    plain = isinstance(answer, torch.Tensor) or not isinstance(network, torch.nn.Module)
    return Export(
        network=network if plain else _returning_tensors(network),
        inputs=tuple(torch.from_numpy(array) for array in arrays.values()),
        input_names=list(arrays),
        output_names=list(outputs),
    )


def _returning_tensors(network: Any) -> Any:  # noqa: ANN401
    """Wrap a module whose answer is a dictionary or nested, which the exporters would sort."""
    import torch

    from tasks.runners.torch_runner import flattened

    if isinstance(network, torch.jit.ScriptModule):
        return network

    class Flattened(torch.nn.Module):  # type: ignore[misc] # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *inputs: Any) -> tuple[Any, ...]:  # noqa: ANN401
            return tuple(flattened(self.network(*inputs)))

    return Flattened().eval()


def settle(graph: Any, recipe: Recipe) -> bool:  # noqa: ANN401 - onnx.GraphProto
    """Hold an exported graph to the recipe, and give its free axes the recipe's names.

    Returns:
        Whether that changed the graph.

    Raises:
        ExportError: An input or output is missing or of another dtype or size, or an axis that
            must stay free was fixed to the example's size.
    """
    found = [*_described(graph.input), *_described(graph.output)]
    specs = [*recipe.signature.inputs, *recipe.signature.outputs]
    values = [*graph.input, *graph.output]
    if len(values) != len(specs) or not all(map(_agrees, specs, values)):
        message = (
            f"{recipe.name}: the exported graph has another signature "
            f"(expected {', '.join(map(str, specs))}; got {', '.join(found)})."
        )
        raise ExportError(message)
    renamed: dict[str, str] = {}
    changed = False
    for spec, value in zip(specs, values, strict=True):
        for axis, name in spec.dynamic_axes.items():
            dim = value.type.tensor_type.shape.dim[axis]
            if dim.dim_param and dim.dim_param != name:
                renamed.setdefault(dim.dim_param, name)
            changed = changed or dim.dim_param != name
            dim.dim_param = name
    _rename(graph, renamed)
    return changed


def _rename(graph: Any, renamed: dict[str, str]) -> None:  # noqa: ANN401
    if not renamed:
        return
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in renamed))
    for value in graph.value_info:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = pattern.sub(lambda match: renamed[match[0]], dim.dim_param)


def _agrees(spec: TensorSpec, value: Any) -> bool:  # noqa: ANN401
    """Whether a graph's input or output is the declared one; unknown sizes agree with any."""
    import onnx

    tensor = value.type.tensor_type
    dtype = onnx.helper.np_dtype_to_tensor_dtype(_numpy_dtype(spec))
    if (value.name, tensor.elem_type) != (spec.name, dtype):
        return False
    dims = tensor.shape.dim
    if len(dims) != len(spec.shape):
        return False
    return all(
        not dim.HasField("dim_value") if isinstance(wanted, str)
        else not dim.HasField("dim_value") or dim.dim_value == wanted
        for wanted, dim in zip(spec.shape, dims, strict=True)
    )  # fmt: skip


def _numpy_dtype(spec: TensorSpec) -> Any:  # noqa: ANN401
    import numpy as np

    return np.dtype(object if spec.dtype == "string" else spec.dtype)


def _described(values: Any) -> list[str]:  # noqa: ANN401
    import onnx

    return [
        f"{value.name} {onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()}"
        f"[{', '.join(_size(dim) for dim in value.type.tensor_type.shape.dim)}]"
        for value in values
    ]


def _size(dim: Any) -> str:  # noqa: ANN401
    return str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?"


def opset_of(model: Any) -> int:  # noqa: ANN401 - onnx.ModelProto
    """Return the version of the default operator set."""
    return next(int(each.version) for each in model.opset_import if each.domain in {"", "ai.onnx"})


def check_opset(model: Any, recipe: Recipe, converter: str) -> None:  # noqa: ANN401
    """Refuse a file of another opset than was asked for.

    Raises:
        ExportError: The exporter did not honour the recipe's ``opset``.
    """
    if (got := opset_of(model)) != recipe.opset:
        message = f"{recipe.name}: {converter} wrote opset {got} (expected {recipe.opset})."
        raise ExportError(message)


def words(error: BaseException) -> str:
    """Return the line of an exporter's error that says what is wrong."""
    from tasks.sources.networks import first_line

    return first_line(error)
