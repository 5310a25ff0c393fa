"""scikit-learn to ONNX by skl2onnx, held to the recipe's names, dtypes, shapes and opset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ConfigurationError, ExportError
from tasks.isolation import Family
from tasks.runners.sklearn_files import Estimator, last_step, load_estimator, method_for, only_input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tasks.domain.artifact import TensorSpec
    from tasks.domain.recipe import InputSpec, OutputSpec, Recipe

_Proto: TypeAlias = Any
"""A message of onnx.proto, whose package has no types."""

CONVERTER = Converter(
    name="skl2onnx",
    takes=ModelFormat.SKLEARN,
    makes=ModelFormat.ONNX,
    family=Family.SKLEARN,
    rank=10,
    summary="scikit-learn estimators and pipelines, by skl2onnx",
)

TEXT_LOCALE = "C.UTF-8"
"""ONNX Runtime lowers text by the C library's rules for a locale, and fails where the locale is
not installed; its default, en_US.UTF-8, is absent from most containers, this one from none.
Source: onnxruntime/core/providers/cpu/nn/string_normalizer.cc."""

_PATTERNS = {r"(?u)\b\w\w+\b": r"[\pL\pN_]{2,}", r"(?u)\b\w+\b": r"[\pL\pN_]+"}
"""Python's token patterns in RE2's words, which ONNX Runtime splits by: there ``\\w`` is ASCII."""


def convert(request: ConvertRequest) -> ConvertReply:
    """Write ``model.onnx`` with the recipe's names in the recipe's order.

    Raises:
        ExportError: skl2onnx cannot express an estimator, or not at this opset.
        ConfigurationError: The recipe asks for an output that the estimator does not have.
    """
    import onnx

    recipe = request.recipe
    estimator = load_estimator(recipe, request.source)
    outputs = [_source_of(recipe, estimator, each) for each in recipe.signature.outputs]
    model = _converted(recipe, estimator)
    _present(recipe, model, outputs)
    _set_opset(recipe, model)
    onnx.save(model, request.folder / "model.onnx")
    return ConvertReply(notes=tuple(_notes(recipe, estimator)))


def _source_of(recipe: Recipe, estimator: Estimator, output: OutputSpec) -> int:
    """Return which of skl2onnx's outputs answers: 0 is the prediction, 1 are the scores."""
    method = method_for(recipe, estimator, output.name, output.role)
    roles = {each.role for each in recipe.signature.outputs}
    if {"probabilities", "logits"} <= roles:
        message = (
            f"{recipe.name}: signature.outputs: skl2onnx gives either probabilities or logits, "
            "and the recipe asks for both. Leave one out."
        )
        raise ConfigurationError(message)
    return int(method in {"predict_proba", "decision_function"})


def _converted(recipe: Recipe, estimator: Estimator) -> _Proto:
    """Return skl2onnx's model of the estimator, under its own names."""
    import onnx.compose
    import skl2onnx
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    spec = only_input(recipe)
    try:
        model = skl2onnx.convert_sklearn(
            estimator,
            name=recipe.name,
            initial_types=[(spec.name, _input_type(recipe, spec))],
            target_opset={"": recipe.opset, "ai.onnx.ml": 3},
            options=dict(_options(recipe, estimator)),
        )
    except (MissingConverter, MissingShapeCalculator) as error:
        words = str(error).split("It usually means")[0].strip()
        message = (
            f"{recipe.name}: skl2onnx has no converter for an estimator of the model: {words} "
            "Replace it by one that skl2onnx lists under supported_converters()."
        )
        raise ExportError(message) from error
    except Exception as error:
        message = (
            f"{recipe.name}: skl2onnx cannot express {_names(estimator)} at opset "
            f"{recipe.opset} ({type(error).__name__}: {' '.join(str(error).split())[:400]}). "
            "Replace the estimator, simplify its parameters, or ask for another opset."
        )
        raise ExportError(message) from error
    # So that no inner tensor bears a name of the recipe; skl2onnx itself calls some "label".
    return onnx.compose.add_prefix(model, "skl/", rename_inputs=False, inplace=True)


def _names(estimator: Estimator) -> str:
    return " → ".join(dict.fromkeys(type(each).__name__ for each in _leaves(estimator)))


def _leaves(estimator: Estimator) -> Iterator[Estimator]:
    """Yield every estimator inside, other than pipelines and unions."""
    parts = getattr(estimator, "steps", None) or getattr(estimator, "transformer_list", None)
    if parts is None and hasattr(estimator, "transformers_"):
        parts = [each[:2] for each in estimator.transformers_]
    if parts is None:
        yield estimator
        return
    for _, part in parts:
        if not isinstance(part, str):
            yield from _leaves(part)


def _input_type(recipe: Recipe, spec: InputSpec) -> _Proto:
    from skl2onnx.common import data_types

    kinds = {
        "float32": data_types.FloatTensorType, "float64": data_types.DoubleTensorType,
        "int32": data_types.Int32TensorType, "int64": data_types.Int64TensorType,
        "bool": data_types.BooleanTensorType, "string": data_types.StringTensorType,
    }  # fmt: skip
    if spec.dtype not in kinds:
        message = (
            f"{recipe.name}: signature.inputs.{spec.name}: skl2onnx takes no {spec.dtype} "
            f"(expected one of: {', '.join(kinds)}). Change the dtype."
        )
        raise ConfigurationError(message)
    return kinds[spec.dtype]([None, *spec.shape[1:]])


def _options(recipe: Recipe, estimator: Estimator) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what skl2onnx should do otherwise than by default, by the estimator's id."""
    from sklearn.base import is_classifier
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import RobustScaler, StandardScaler

    roles = {each.role for each in recipe.signature.outputs}
    last = last_step(estimator)
    for each in _leaves(estimator):
        if each is last and is_classifier(last):
            yield id(each), {"zipmap": False} | ({"raw_scores": True} if "logits" in roles else {})
        elif isinstance(each, CountVectorizer):  # TfidfVectorizer is one too
            _check_text(recipe, each)
            yield (
                id(each),
                {
                    "tokenexp": _PATTERNS.get(each.token_pattern, each.token_pattern),
                    "locale": TEXT_LOCALE,
                },
            )
        elif isinstance(each, StandardScaler | RobustScaler):
            # A reciprocal in float32, the default, can push a row across a tree's threshold;
            # scikit-learn divides in float64 (sklearn-onnx, "Issues when switching to float").
            yield id(each), {"div": "div_cast"}


def _check_text(recipe: Recipe, vectorizer: Estimator) -> None:
    """Refuse what skl2onnx would get wrong without a word."""
    if vectorizer.get_stop_words() and max(vectorizer.ngram_range) > 1:
        message = (
            f"{recipe.name}: {type(vectorizer).__name__}: scikit-learn drops stop words before "
            "it joins words to n-grams; skl2onnx does not. Use ngram_range (1, 1), or no stop "
            "words."
        )
        raise ExportError(message)


def _notes(recipe: Recipe, estimator: Estimator) -> Iterator[str]:
    import skl2onnx
    from sklearn.feature_extraction.text import CountVectorizer

    newest = skl2onnx.__max_supported_opset__
    if recipe.opset > newest:
        yield f"opset {recipe.opset} is newer than skl2onnx was tested with ({newest})"
    if any(isinstance(each, CountVectorizer) for each in _leaves(estimator)):
        yield "text is split by com.microsoft Tokenizer, so the model runs in ONNX Runtime alone"
        yield (
            f"text is lowered by the rules of the locale {TEXT_LOCALE}, which must be installed; "
            "unlike Python's, they keep a Greek final sigma and the dot of İ"
        )


def _present(recipe: Recipe, model: _Proto, outputs: list[int]) -> None:
    """Give the graph the recipe's outputs, in its order, and name the dynamic axes."""
    from onnx import helper

    graph, made = model.graph, list(model.graph.output)
    for each in made:
        if not each.type.HasField("tensor_type"):
            message = (
                f"{recipe.name}: skl2onnx's output '{each.name}' is a list of dictionaries "
                "(expected a tensor). Replace the model's last estimator."
            )
            raise ExportError(message)
    del graph.output[:]
    for spec, position in zip(recipe.signature.outputs, outputs, strict=True):
        if position >= len(made):
            message = (
                f"{recipe.name}: skl2onnx gives no {spec.role} for output '{spec.name}'. Change "
                "its role, or replace the model's last estimator."
            )
            raise ExportError(message)
        _append_output(recipe.name, graph, spec, made[position])
    spec_in = only_input(recipe)
    named = helper.make_tensor_value_info(spec_in.name, _element_type(spec_in), spec_in.shape)
    graph.input[0].CopyFrom(named)
    _drop_unused(graph)


def _append_output(model: str, graph: _Proto, spec: OutputSpec, made: _Proto) -> None:
    """Append the nodes that lead from skl2onnx's tensor ``made`` to the declared output."""
    from onnx import TensorProto, helper, numpy_helper

    wanted, got = _element_type(spec), made.type.tensor_type.elem_type
    if TensorProto.STRING in {wanted, got} and wanted != got:
        message = (
            f"{model}: output '{spec.name}': the model answers "
            f"{TensorProto.DataType.Name(got).lower()} (expected {spec.dtype}). Change the "
            "dtype in the recipe."
        )
        raise ExportError(message)
    tensor = made.name
    for operator, constant, attributes in _reshaping(spec, made.type.tensor_type.shape.dim):
        names = [tensor, f"{operator}/{spec.name}/constant"]
        graph.initializer.append(numpy_helper.from_array(constant, names[1]))
        tensor = f"{operator}/{spec.name}"
        graph.node.append(helper.make_node(operator, names, [tensor], **attributes))
    cast = {"to": wanted} if wanted != got else {}
    last = helper.make_node("Cast" if cast else "Identity", [tensor], [spec.name], **cast)
    graph.node.append(last)
    graph.output.append(helper.make_tensor_value_info(spec.name, wanted, spec.shape))


def _reshaping(
    spec: OutputSpec, dims: Sequence[_Proto]
) -> Iterator[tuple[str, NDArray[np.int64], dict[str, int]]]:
    """Yield operators, constants and attributes that turn ``dims`` into the declared shape."""
    import numpy as np

    rank, scores = len(dims), dims[-1].dim_value if dims else 0
    one_score = spec.shape[1:] in {(), (1,)}
    if spec.role == "logits" and one_score and scores > 1:
        # Of two classes scikit-learn gives the second one's score alone, skl2onnx both.
        yield "Gather", np.array(1, np.int64), {"axis": 1}
        rank -= 1
    if rank != len(spec.shape):
        fixed = [each for each in spec.shape[1:] if isinstance(each, int)]
        yield "Reshape", np.array([-1, *fixed], np.int64), {}


def _element_type(spec: TensorSpec) -> int:
    import numpy as np
    from onnx import TensorProto, helper

    if spec.dtype == "string":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)))


def _drop_unused(graph: _Proto) -> None:
    """Remove the nodes that no output needs, such as scores where only labels are asked for."""
    needed = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def _set_opset(recipe: Recipe, model: _Proto) -> None:
    """Declare the opset that was asked for; skl2onnx may declare one twice, or a lower one.

    A lower one may be raised where each operator means the same in both.
    """
    from onnx import defs, helper

    opsets = {each.domain: each.version for each in model.opset_import}
    made = opsets.get("", recipe.opset)
    operators = sorted({node.op_type for node in model.graph.node if not node.domain})
    for name in operators if made != recipe.opset else []:
        versions = [defs.get_schema(name, each).since_version for each in (made, recipe.opset)]
        if versions[0] != versions[1]:
            message = (
                f"{recipe.name}: skl2onnx wrote {name} of opset {made} (expected "
                f"{recipe.opset}), which means something else there. Ask for opset {made}."
            )
            raise ExportError(message)
    used = {node.domain for node in model.graph.node} - {""}
    kept = {"": recipe.opset} | {domain: opsets[domain] for domain in sorted(used)}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*each) for each in kept.items())
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
