"""Triton Inference Server: a model repository with a generated ``config.pbtxt``.

    <out>/<model>/config.pbtxt
    <out>/<model>/labels.txt             where the recipe lists its labels
    <out>/<model>/<version>/model.onnx   and model.onnx.data beside it, if the release has one

Sources: "Model Repository" and "Model Configuration" of Triton's user guide.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tasks.domain.artifact import ModelFormat
from tasks.serving.folders import Layout, below, place, write_document

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.artifact import DType, TensorSpec
    from tasks.domain.recipe import Recipe
    from tasks.domain.release import Manifest
    from tasks.domain.signature import OutputSpec
    from tasks.serving.source import ReleaseSource

MAX_BATCH_SIZE = 32
"""Rows that Triton joins into one call, where nobody says otherwise."""
IMAGE = "nvcr.io/nvidia/tritonserver:26.08-py3"
"""The newest release whose ONNX Runtime ``tasks.domain.compatibility`` knows."""
LABELS = "labels.txt"

_TYPES: dict[DType, str] = {
    "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64",
    "int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32", "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64", "bool": "TYPE_BOOL", "string": "TYPE_STRING",
}  # fmt: skip
_KINDS = {"cpu": "KIND_CPU", "cuda": "KIND_GPU", "both": "KIND_AUTO"}
"""By the recipe's device; KIND_AUTO takes a GPU where there is one."""


def lay_out_triton(
    release: ReleaseSource, out: Path, max_batch_size: int = MAX_BATCH_SIZE, variant: str = ""
) -> Layout:
    """Write a release's ONNX model into the model repository ``out``.

    Args:
        release: What to serve.
        out: The repository; it may hold other models, and other versions of this one.
        max_batch_size: The most rows that Triton may join into one call.
        variant: Which variant of the ONNX model to serve; empty: that model itself.

    Raises:
        ConfigurationError: The release has no ONNX model or no such variant, or ``out`` holds
            another one of this name, with another signature.
        DigestMismatchError: A file is not the one that the manifest names.
    """
    manifest = release.manifest
    folder, version = out / manifest.model, str(manifest.version)
    config = write_document(folder / "config.pbtxt", config_of(manifest, max_batch_size))
    labels = _labels(manifest.recipe)
    documents = [config]
    if labels:
        documents.append(write_document(folder / LABELS, _lines(labels)))
    placed = place(release, ModelFormat.ONNX, folder / version, variant)
    return Layout(
        server="triton",
        model=manifest.model,
        version=manifest.version,
        folder=out,
        files=below(manifest.model, (*documents, *below(version, placed))),
        command=command_of(out, manifest.recipe),
        notes=_notes(manifest.recipe),
    )


def command_of(out: Path, recipe: Recipe) -> str:
    """Return the command that serves the repository ``out``."""
    gpus = "" if recipe.device == "cpu" else "--gpus=all "
    return (
        f"docker run --rm {gpus}-p 8000:8000 -p 8001:8001 -p 8002:8002 "
        f"-v {out.resolve()}:/models:ro {IMAGE} tritonserver --model-repository=/models"
    )


def config_of(manifest: Manifest, max_batch_size: int = MAX_BATCH_SIZE) -> str:
    """Return ``config.pbtxt``: from the manifest's recipe alone, so that it never depends on a run.

    Rows are joined where every output has one row for each row of the input; else Triton is
    told of the whole shape and joins nothing.
    """
    recipe = manifest.recipe
    signature = recipe.signature
    joins = all(spec.shape[:1] == ("batch",) for spec in signature.outputs)
    inputs = [_tensor(spec, joins=joins) for spec in signature.inputs]
    outputs = [
        _tensor(spec, joins=joins, labels=_has_labels(spec, recipe)) for spec in signature.outputs
    ]
    lines = [
        f"name: {json.dumps(manifest.model)}",
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {max_batch_size if joins else 0}",
        _listed("input", inputs),
        _listed("output", outputs),
        f"instance_group [\n  {{ count: 1, kind: {_KINDS[recipe.device]} }}\n]",
    ]
    if joins:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _listed(side: str, tensors: list[str]) -> str:
    return f"{side} [\n" + ",\n".join(tensors) + "\n]"


def _tensor(spec: TensorSpec, *, joins: bool, labels: bool = False) -> str:
    shape = spec.shape[1:] if joins else spec.shape
    dims = [dim if isinstance(dim, int) else -1 for dim in shape]
    fields = [
        f"name: {json.dumps(spec.name, ensure_ascii=False)}",
        f"data_type: {_TYPES[spec.dtype]}",
        f"dims: [ {', '.join(map(str, dims or [1]))} ]",
    ]
    if not dims:  # one value a row: Triton wants a dimension, the model has none
        fields.append("reshape: { shape: [ ] }")
    if labels:
        fields.append(f'label_filename: "{LABELS}"')
    return "  {\n" + "\n".join(f"    {field}" for field in fields) + "\n  }"


def _lines(labels: tuple[str, ...]) -> str:
    """Write one label a line, whatever spaces it has: its line is its number."""
    return "".join(f"{' '.join(each.split())}\n" for each in labels)


def _labels(recipe: Recipe) -> tuple[str, ...]:
    """Return the recipe's own labels, where an output has one score for each."""
    if isinstance(recipe.labels, tuple) and any(
        _has_labels(spec, recipe) for spec in recipe.signature.outputs
    ):
        return recipe.labels
    return ()


def _has_labels(spec: OutputSpec, recipe: Recipe) -> bool:
    return (
        isinstance(recipe.labels, tuple)
        and spec.role in {"logits", "probabilities"}
        and spec.shape[-1] == len(recipe.labels)
    )


def _notes(recipe: Recipe) -> tuple[str, ...]:
    if isinstance(recipe.labels, str):
        return (f"no {LABELS}: the recipe names its labels ('{recipe.labels}') and lists none",)
    return ()
