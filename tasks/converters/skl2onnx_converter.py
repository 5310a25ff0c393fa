"""scikit-learn to ONNX by skl2onnx, held to the recipe's names, dtypes, shapes and opset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.converters.skl2onnx_graph import Proto, present, set_opset
from tasks.domain.artifact import ModelFormat
from tasks.domain.errors import ConfigurationError, ExportError
from tasks.isolation import Family
from tasks.runners.sklearn_files import Estimator, last_step, load_estimator, method_for, only_input

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.domain.recipe import Recipe
    from tasks.domain.signature import InputSpec, OutputSpec

CONVERTER = Converter(
    name="skl2onnx",
    takes=ModelFormat.SKLEARN,
    makes=ModelFormat.ONNX,
    family=Family.SKLEARN,
    rank=10,
    summary="scikit-learn estimators and pipelines, by skl2onnx",
    tools=("skl2onnx",),
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
    present(recipe, model, outputs)
    set_opset(recipe, model)
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


def _converted(recipe: Recipe, estimator: Estimator) -> Proto:
    """Return skl2onnx's model of the estimator, under its own names."""
    import onnx.compose
    import skl2onnx
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    spec = only_input(recipe)
    _give_nodes_plain_numbers()
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


def _give_nodes_plain_numbers() -> None:
    """Let skl2onnx make nodes of numpy's numbers and of booleans, which onnx 1.23 refuses.

    Without this no HistGradientBoosting model is exported (skl2onnx 1.20).
    """
    import numpy as np
    from onnx import helper
    from skl2onnx.common import _container

    def plain(value: Any) -> Any:  # noqa: ANN401 - whatever an attribute may be
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return int(value) if isinstance(value, bool) else value

    def make_node(*args: Any, **attributes: Any) -> Proto:  # noqa: ANN401
        return helper.make_node(*args, **{name: plain(each) for name, each in attributes.items()})

    _container.make_node = make_node


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


def _input_type(recipe: Recipe, spec: InputSpec) -> Proto:
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
            asked = {"zipmap": False, "raw_scores": "logits" in roles}
            yield id(each), {name: asked[name] for name in asked if name in _knows(each)}
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


def _knows(estimator: Estimator) -> set[str]:
    """Return the options that skl2onnx has for this kind of estimator."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import get_converter

    name = sklearn_operator_name_map.get(type(estimator))
    return set(get_converter(name).get_allowed_options() or ()) if name else set()


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
