"""Triton's own schema of ``config.pbtxt``, from NVIDIA's client package."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest


@cache
def _schema() -> Any:
    """Load ``model_config_pb2`` by its path: its package wants gRPC and more."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).with_name("grpc") / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config_pb2", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(text: str) -> Any:
    """Parse ``config.pbtxt`` strictly; skip the test where the schema is not installed."""
    from google.protobuf import text_format

    schema = _schema()
    if schema is None:
        pytest.skip("tritonclient, which has Triton's schema, is not installed")
    return text_format.Parse(text, schema.ModelConfig())


def type_name(value: int) -> str:
    name: str = _schema().DataType.Name(value)
    return name


def kind_name(value: int) -> str:
    name: str = _schema().ModelInstanceGroup.Kind.Name(value)
    return name
