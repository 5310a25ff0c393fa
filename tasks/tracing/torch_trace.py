"""Every operation of a torch network on a few rows, under the name of the module that asks it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.domain.recipe import Recipe
from tasks.domain.value import Value
from tasks.tracing.recording import Trace, TracedTensor, rows_of, write_trace

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TraceSourceRequest(Value):
    """Which source model makes what of which rows."""

    recipe: Recipe
    model: Path
    """The source model's folder."""
    probe: Path
    rows: tuple[int, ...]
    folder: Path
    """Empty folder for the trace."""


def trace_torch(request: TraceSourceRequest) -> Trace:
    """Write what each operation answers, in order, and the parameters after them.

    Raises:
        ReleaseError: The network does not load, or does not take the rows.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from tasks.runners.torch_runner import TorchRunner

    runner = TorchRunner.load(request.recipe, request.model, "cpu")
    found: list[tuple[TracedTensor, NDArray[Any]]] = []
    within: list[str] = [""]

    class Recorder(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(
            self,
            operation: Any,  # noqa: ANN401
            types: Any,  # noqa: ANN401
            args: Any = (),  # noqa: ANN401
            kwargs: Any = None,  # noqa: ANN401
        ) -> Any:  # noqa: ANN401
            answer = operation(*args, **(kwargs or {}))
            for each in answer if isinstance(answer, tuple | list) else (answer,):
                if isinstance(each, torch.Tensor) and each.numel():
                    name = str(operation).removeprefix("aten.")
                    tensor = TracedTensor(name=name, layer=within[-1])
                    found.append((tensor, each.detach().cpu().numpy().copy()))
            return answer

    hooks = _name_modules(runner.network, within)
    inputs = rows_of(request.probe, request.rows)
    with Recorder():
        runner.answer([inputs[spec.name] for spec in request.recipe.signature.inputs])
    for hook in hooks:
        hook.remove()
    return write_trace(request.folder, [*found, *_parameters(runner.network)])


def _name_modules(network: Any, within: list[str]) -> list[Any]:  # noqa: ANN401
    """Keep ``within`` at the module that is called; script modules take no hooks."""
    import torch

    if not isinstance(network, torch.nn.Module) or isinstance(network, torch.jit.ScriptModule):
        return []
    hooks = []
    for name, module in network.named_modules():

        def enter(_module: Any, _args: Any, name: str = name) -> None:  # noqa: ANN401
            within.append(name)

        def leave(_module: Any, _args: Any, _answer: Any) -> None:  # noqa: ANN401
            within.pop()

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    return hooks


def _parameters(network: Any) -> list[tuple[TracedTensor, NDArray[Any]]]:  # noqa: ANN401
    state = network.state_dict
    tensors = state() if callable(state) else state
    return [
        (TracedTensor(name=f"parameter {name}", layer=name.rpartition(".")[0]), each.cpu().numpy())
        for name, each in tensors.items()
        if hasattr(each, "numpy")
    ]
