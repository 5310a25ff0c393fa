"""The table of operators that we add to onnx-tf, and how they get there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import tensorflow as tf

from tasks.domain.errors import ExportError
from tasks.onnxtf.widened import WIDENED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

Tensor: TypeAlias = Any
"""A ``tf.Tensor``; TensorFlow has no stubs."""

MACHINE_LEARNING = "ai.onnx.ml"


class Node:
    """One node of an ONNX graph, and the tensors that it reads."""

    def __init__(self, node: Any, tensors: Mapping[str, Tensor], version: int) -> None:  # noqa: ANN401 - onnx-tf's OnnxNode
        self._node = node
        self._tensors = tensors
        self.version = version
        self.attributes: dict[str, Any] = node.attrs
        self.outputs: list[str] = node.outputs

    def __str__(self) -> str:
        """Write the node as ``Squeeze-13 'name'``."""
        return f"{self._node.op_type}-{self.version} '{self._node.name}'"

    def since(self, version: int) -> bool:
        """Return whether this version of the operator is ``version`` or a later one."""
        return self.version >= version

    def __len__(self) -> int:
        """Return how many inputs the node lists, those left empty included."""
        return len(self._node.inputs)

    def __getitem__(self, index: int) -> Tensor:
        """Return the tensor of an input that must be there."""
        return self._tensors[self._node.inputs[index]]

    def get(self, index: int) -> Tensor | None:
        """Return the tensor of an input, or ``None`` where it is left out."""
        if index >= len(self) or not self._node.inputs[index]:
            return None
        return self[index]

    def known(self, index: int) -> NDArray[np.generic] | None:
        """Return an input's value where it is the same for all rows, else ``None``."""
        tensor = self.get(index)
        return None if tensor is None else tf.get_static_value(tensor)

    def fixed(self, index: int, what: str) -> NDArray[np.generic] | None:
        """Return an input's value, or ``None`` where it is left out.

        Raises:
            ExportError: The value is computed while the model runs.
        """
        if self.get(index) is None:
            return None
        value = self.known(index)
        if value is None:
            raise self.cannot(f"{what} computed while the model runs")
        return value

    def text(self, name: str, default: str) -> str:
        """Return a text attribute."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def cannot(self, what: str) -> ExportError:
        """Word the error for something that has no equivalent here."""
        return ExportError(
            f"onnx-tf cannot express: {self} with {what}. Try converters.saved_model: [onnx2tf]."
        )


Operator: TypeAlias = "Callable[[Node], list[Tensor]]"


@dataclass(frozen=True)
class _Entry:
    function: Operator
    name: str
    domain: str
    versions: tuple[int, ...]


_entries: list[_Entry] = []
_classes: list[Any] = []  # a class remembers its subclasses by weak references only


def operator(name: str, *versions: int, domain: str = "") -> Callable[[Operator], Operator]:
    """Enter a function into the table as the meaning of ``versions`` of an operator.

    Where onnx-tf has the operator in these versions too, ours is used. The versions are
    those in which ONNX changed the operator, as its changelog numbers them.
    """

    def enter(function: Operator) -> Operator:
        _entries.append(_Entry(function, name, domain, versions))
        return function

    return enter


def handlers() -> dict[tuple[str, str], Any]:
    """Return the handler class of each operator, by domain and name; ``onnx_tf`` is imported."""
    from onnx_tf.handlers.backend_handler import BackendHandler

    return {(each.DOMAIN, each.ONNX_OP): each for each in BackendHandler.__subclasses__()}


def versions(handler: Any) -> set[int]:  # noqa: ANN401 - a class of onnx-tf
    """Return the operator versions that a handler class knows."""
    return {int(name[8:]) for name in dir(handler) if name.startswith("version_")}


def enter_all() -> None:
    """Hand the table to onnx-tf."""
    from onnx_tf.handlers.backend_handler import BackendHandler

    old = handlers()
    for name, domain in dict.fromkeys((each.name, each.domain) for each in _entries):
        members: dict[str, Any] = {"ONNX_OP": name, "DOMAIN": domain}
        # a class of its own leaves behind the checks and variables of onnx-tf's; the
        # youngest subclass is the one that onnx-tf uses
        if elder := old.get((domain, name)):
            for version in versions(elder):
                members[f"version_{version}"] = _elder_method(elder, version)
        for each in _entries:
            if (each.name, each.domain) == (name, domain):
                members |= {f"version_{v}": _method(each.function) for v in each.versions}
        _classes.append(type(name, (BackendHandler,), members))
    for (domain, name), handler in handlers().items():
        for version in WIDENED.get(name, ()) if not domain else ():
            elder_version = max(each for each in versions(handler) if each < version)
            setattr(handler, f"version_{version}", getattr(handler, f"version_{elder_version}"))


def _method(function: Operator) -> Any:  # noqa: ANN401
    def handle(cls: Any, node: Any, /, **given: Any) -> list[Tensor]:  # noqa: ANN401
        return function(Node(node, given["tensor_dict"], cls.SINCE_VERSION))

    return classmethod(handle)


def _elder_method(elder: Any, version: int) -> Any:  # noqa: ANN401
    def handle(cls: Any, node: Any, /, **given: Any) -> list[Tensor]:  # noqa: ANN401
        elder.VERSION, elder.SINCE_VERSION = cls.VERSION, cls.SINCE_VERSION
        elder.args_check(node, **given)
        answer: list[Tensor] = getattr(elder, f"version_{version}")(node, **given)
        return answer

    return classmethod(handle)
