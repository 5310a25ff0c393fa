"""Torch programs, which carry their own graph: TorchScript and ``torch.export`` files.

Neither loads Python code. A ``.pt2`` archive may nevertheless smuggle some in, since torch
unpickles parts of it and evaluates expressions in it; those parts are looked through first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.child import report_progress
from tasks.domain.errors import AcquisitionError, SignatureMismatchError, VerificationError
from tasks.sources import AcquireReply, AcquireRequest
from tasks.sources.networks import first_line

SCRIPT = "program.pt"
EXPORTED = "program.pt2"

_OPERATOR = re.compile(
    r"torch\.ops\.(?!load_library|higher_order\.triton)\w+\.\w+(\.\w+)?"
    r"|torch\._?sym_\w+|math\.\w+"
    r"|_operator\.(abs|add|and_|eq|floordiv|ge|getitem|gt|le|lshift|lt|mod|mul|ne|neg|not_|or_|pos"
    r"|pow|rshift|sub|truediv|xor)"
)
_DUNDER = re.compile(r"__(?!i?(and|or|xor|lshift|rshift)__)|(?<!and)(?<!or)(?<!shift)__$")
# what sympy writes of sizes: symbols, numbers, and calls of its own classes and of torch's
_EXPRESSION = re.compile(
    r"(?:Symbol\('[a-z]+\d+'|[a-z_]+=(?:True|False)\b|[a-z]{1,3}\d+\b|\b[A-Z][A-Za-z]*\b"
    r"|\b\d+(?:\.\d+)?\b|[\s()+*/,<>=&|~-])*+"
)


def acquire(request: AcquireRequest) -> AcquireReply:
    """Take the program over, once it has loaded and answered as the recipe says.

    Raises:
        AcquisitionError: It is no torch program, does not load, is in training mode, or does
            not answer as the recipe declares.
    """
    from tasks.runners.torch_runner import TorchRunner

    source = request.downloads[0]
    name = request.recipe.name
    kept = request.folder / (EXPORTED if _is_exported(source, name) else SCRIPT)
    shutil.copyfile(source, kept)
    report_progress(0.5, "trying the program")
    try:
        runner = TorchRunner.load(request.recipe, request.folder, "cpu")
        for rows in (2, 3):  # so that a batch size fixed by the trace shows
            runner.try_out(rows)
    except SignatureMismatchError:
        raise
    except VerificationError as error:
        raise AcquisitionError(f"{name}: {error}") from error
    kind = "torch.export program" if kept.name == EXPORTED else "TorchScript"
    return AcquireReply(notes=(f"the source is a {kind}",))


def open_program(folder: Path) -> Any:  # noqa: ANN401 - ScriptModule or ExportedProgram
    """Open the program in ``folder``, in evaluation mode.

    Raises:
        VerificationError: It does not load, could run code, or is in training mode.
    """
    if (folder / EXPORTED).exists():
        return _open_exported(folder / EXPORTED)
    return _open_script(folder / SCRIPT)


def _is_exported(path: Path, model: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        message = f"{model}: {path.name}: not a torch program ({first_line(error)})."
        raise AcquisitionError(message) from error
    if "archive_format" in inside:
        return True
    if "constants.pkl" in inside:
        return False
    hint = "It is a pickled checkpoint: use 'torchvision'." if "data.pkl" in inside else ""
    message = (
        f"{model}: {path.name}: not a torch program (expected TorchScript from torch.jit.save or "
        f"a program from torch.export.save). {hint}"
    )
    raise AcquisitionError(message.rstrip())


# --- TorchScript --------------------------------------------------------------------------


def _open_script(path: Path) -> Any:  # noqa: ANN401
    import torch

    try:
        program = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        message = f"{path.name}: TorchScript does not load ({first_line(error)})."
        raise VerificationError(message) from error
    if hasattr(program, "training"):  # a frozen program has lost the switch, and is in eval mode
        program.eval()
    _refuse_training(path.name, _training_in_script(program.inlined_graph))
    return program


def _training_in_script(graph: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the operators that a trace fixed in training mode, which ``eval()`` cannot change."""
    import torch

    for node in _nodes(graph):
        if node.schema() == "(no schema)":
            continue
        names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]  # noqa: SLF001
        given = dict(zip(names, node.inputs(), strict=False))
        switch = given.get("training", given.get("train"))
        if switch is None or switch.toIValue() is not True:
            continue
        mean = given.get("running_mean")
        if mean is None or not _is_none(mean):
            yield node.kind().removeprefix("aten::")


def _is_none(value: Any) -> bool:  # noqa: ANN401
    node = value.node()
    return bool(node.kind() == "prim::Constant" and value.toIValue() is None)


def _nodes(block: Any) -> Iterator[Any]:  # noqa: ANN401
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


# --- torch.export -------------------------------------------------------------------------


def _open_exported(path: Path) -> Any:  # noqa: ANN401
    import torch

    # torch.load would fall back to full unpickling of what plain unpickling refuses
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        _refuse_code(path)
        program = torch.export.load(path)
    except VerificationError:
        raise
    except Exception as error:
        message = f"{path.name}: the torch.export program does not load ({first_line(error)})."
        raise VerificationError(message) from error
    _refuse_training(path.name, _training_in_export(program))
    return program


def _refuse_code(path: Path) -> None:
    """Refuse an archive in which torch would unpickle or evaluate more than tensors and sizes.

    Read by torch's own reader, so that both see the same entries.

    Source: ``torch/export/pt2_archive/_package.py`` (``use_pickle``, opaque objects) and
        ``torch/_export/serde/serialize.py`` (``sympify`` of ``expr_str``, operators by name).
    """
    import torch

    reader = torch._C.PyTorchFileReader(str(path))  # noqa: SLF001
    for name in reader.get_all_records():
        if not name.endswith(".json"):
            continue
        for key, value in _fields(json.loads(reader.get_record(name))):
            if _could_run_code(key, value):
                message = (
                    f"{path.name}: {name}: '{key}' could run code when loaded "
                    f"({str(value)[:80]!r}). Save the program again from a source you trust."
                )
                raise VerificationError(message)


def _could_run_code(key: str, value: object) -> bool:
    if key == "use_pickle":
        return value is not False
    if key in {"target", "as_operator"} and isinstance(value, str) and "." in value:
        return not _OPERATOR.fullmatch(value) or any(map(_DUNDER.search, value.split(".")))
    if key == "expr_str" and value is not None:
        return not _EXPRESSION.fullmatch(str(value))
    return False


def _fields(node: object) -> Iterator[tuple[str, object]]:
    """Yield every key of a JSON document with its value, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from _fields(value)
    elif isinstance(node, list):
        for value in node:
            yield from _fields(value)


def _training_in_export(program: Any) -> Iterator[str]:  # noqa: ANN401
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        names = [argument.name for argument in schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        if given.get("training", given.get("train")) is not True:
            continue
        if "running_mean" not in given or given["running_mean"] is not None:
            yield schema.name.removeprefix("aten::")


def _refuse_training(name: str, operators: Iterator[str]) -> None:
    found = sorted(set(operators))
    if found:
        message = (
            f"{name}: the program was saved in training mode (expected inference, got "
            f"{', '.join(found)} with training=True, so that answers depend on chance or on the "
            "other rows). Call model.eval() before tracing or exporting, and save it again."
        )
        raise VerificationError(message)
