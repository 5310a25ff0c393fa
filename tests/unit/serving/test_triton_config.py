"""``config.pbtxt`` says what the manifest's recipe says, in words that Triton's schema takes."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from google.protobuf import text_format

from tasks.domain.artifact import DType
from tasks.serving.triton_layout import config_of
from tests.support.publisher import manifest_maker
from tests.support.triton_schema import kind_name, parsed, type_name

IMAGE = {
    "name": "images", "dtype": "float32", "shape": ["batch", 3, "height", 224],
    "domain": {"kind": "range", "low": 0, "high": 1},
}  # fmt: skip
WORDS = {
    "name": "text", "dtype": "string", "shape": ["batch"],
    "domain": {"kind": "choice", "values": ["a"]},
}  # fmt: skip
SCORES = {"name": "scores", "dtype": "float32", "shape": ["batch", 2], "role": "probabilities"}
LABEL = {"name": "label", "dtype": "int64", "shape": ["batch"], "role": "labels"}


def config(
    inputs: list[Any] | None = None,
    outputs: list[Any] | None = None,
    batch: int = 32,
    **fields: Any,
) -> str:
    manifest = manifest_maker("net")(7, ())
    signature = {"inputs": inputs or [IMAGE], "outputs": outputs or [SCORES, LABEL]}
    recipe = manifest.recipe.model_dump(mode="json") | {"signature": signature} | fields
    made = manifest.model_copy(update={"recipe": type(manifest.recipe).model_validate(recipe)})
    return config_of(made, batch)


def test_it_is_what_triton_reads() -> None:
    assert (
        config(labels=["cat", "dog"])
        == """\
name: "net"
platform: "onnxruntime_onnx"
max_batch_size: 32
input [
  {
    name: "images"
    data_type: TYPE_FP32
    dims: [ 3, -1, 224 ]
  }
]
output [
  {
    name: "scores"
    data_type: TYPE_FP32
    dims: [ 2 ]
    label_filename: "labels.txt"
  },
  {
    name: "label"
    data_type: TYPE_INT64
    dims: [ 1 ]
    reshape: { shape: [ ] }
  }
]
instance_group [
  { count: 1, kind: KIND_CPU }
]
dynamic_batching { }
"""
    )


def test_tritons_own_schema_takes_it_and_reads_the_same() -> None:
    made = parsed(config(labels=["cat", "dog"]))

    assert (made.name, made.platform, made.max_batch_size) == ("net", "onnxruntime_onnx", 32)
    assert made.HasField("dynamic_batching")
    assert [(each.name, list(each.dims)) for each in made.input] == [("images", [3, -1, 224])]
    assert [(each.name, list(each.dims)) for each in made.output] == [
        ("scores", [2]),
        ("label", [1]),
    ]
    assert [each.HasField("reshape") for each in made.output] == [False, True]
    assert made.output[0].label_filename == "labels.txt"


def test_the_schema_refuses_what_triton_would_refuse() -> None:
    with pytest.raises(text_format.ParseError):
        parsed(config().replace("dims:", "sizes:"))


@pytest.mark.parametrize("dtype", get_args(DType))
def test_every_dtype_has_tritons_name_for_it(dtype: str) -> None:
    made = parsed(config(outputs=[{"name": "y", "dtype": dtype, "shape": ["batch", 2]}]))

    short = {"string": "STRING", "bool": "BOOL"}.get(dtype) or dtype.replace("float", "FP").upper()
    assert type_name(made.output[0].data_type) == f"TYPE_{short}"


@pytest.mark.parametrize(
    ("device", "kind"), [("cpu", "KIND_CPU"), ("cuda", "KIND_GPU"), ("both", "KIND_AUTO")]
)
def test_the_recipes_device_chooses_where_it_runs(device: str, kind: str) -> None:
    (group,) = parsed(config(device=device)).instance_group

    assert (kind_name(group.kind), group.count) == (kind, 1)


def test_text_of_one_value_a_row_is_reshaped_on_its_way_in() -> None:
    (text,) = parsed(config(inputs=[WORDS])).input

    assert list(text.dims) == [1]
    assert text.HasField("reshape")


def test_rows_are_not_joined_where_an_output_has_no_row_of_its_own() -> None:
    total = {"name": "total", "dtype": "float32", "shape": [1]}

    made = parsed(config(outputs=[SCORES, total]))

    assert made.max_batch_size == 0
    assert not made.HasField("dynamic_batching")
    assert list(made.input[0].dims) == [-1, 3, -1, 224]
    assert [list(each.dims) for each in made.output] == [[-1, 2], [1]]


def test_the_largest_batch_is_the_callers_choice() -> None:
    assert parsed(config(batch=8)).max_batch_size == 8


def test_labels_that_do_not_number_the_scores_are_left_out() -> None:
    assert "label_filename" not in config(labels=["cat", "dog", "bird"])
