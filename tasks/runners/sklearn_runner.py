"""Running scikit-learn: an output's role says which method answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from tasks.domain.errors import SignatureMismatchError
from tasks.runners.sklearn_files import (
    Estimator,
    check_signature,
    load_estimator,
    method_for,
    only_input,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.domain.artifact import ModelSignature
    from tasks.domain.recipe import Recipe
    from tasks.domain.signature import OutputSpec


_Answer: TypeAlias = Any
"""What a method of scikit-learn returned: an array, a sparse matrix or a list."""


class SklearnRunner:
    """A fitted scikit-learn estimator or pipeline."""

    def __init__(self, recipe: Recipe, estimator: Estimator) -> None:
        self._recipe = recipe
        self._estimator = estimator
        self._input = only_input(recipe)

    @classmethod
    def load(cls, recipe: Recipe, folder: Path) -> Self:
        """Load the estimator in ``folder``.

        Raises:
            VerificationError: It does not load.
            ConfigurationError: It contradicts the recipe, or is a pickle that nobody trusts.
        """
        estimator = load_estimator(recipe, folder)
        check_signature(recipe, estimator)
        return cls(recipe, estimator)

    @property
    def runtime(self) -> str:
        """What runs it, such as ``scikit-learn 1.9.1 cpu``."""
        import sklearn

        return f"scikit-learn {sklearn.__version__} cpu"

    def signature(self) -> ModelSignature | None:
        """Return nothing: a fitted estimator knows neither names nor dtypes."""
        return None

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Answer one batch.

        Raises:
            SignatureMismatchError: An answer cannot take its declared dtype.
        """
        table = inputs[self._input.name]
        rows = table.astype(object) if table.dtype.kind == "U" else table
        answers: dict[str, _Answer] = {}
        for output in self._recipe.signature.outputs:
            method = method_for(self._recipe, self._estimator, output.name, output.role)
            if method not in answers:
                answers[method] = getattr(self._estimator, method)(rows)
        return {
            output.name: self._as_declared(
                output,
                answers[method_for(self._recipe, self._estimator, output.name, output.role)],
            )
            for output in self._recipe.signature.outputs
        }

    def _as_declared(self, output: OutputSpec, answer: _Answer) -> NDArray[np.generic]:
        array = np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)
        if array.ndim + 1 == len(output.shape) and output.shape[-1] == 1:
            array = array[..., np.newaxis]
        elif array.ndim == len(output.shape) + 1 and array.shape[-1] == 1:
            array = array[..., 0]
        wanted = np.dtype(np.str_ if output.dtype == "string" else output.dtype)
        source = array.astype(np.str_) if array.dtype == object else array
        if (source.dtype.kind == "U") != (wanted.kind == "U") or not np.can_cast(
            source.dtype, wanted, "same_kind"
        ):
            message = (
                f"{self._recipe.name}: output '{output.name}': scikit-learn answers "
                f"{source.dtype} (expected {output.dtype}). Change the dtype in the recipe."
            )
            raise SignatureMismatchError(message)
        return source if wanted.kind == "U" else source.astype(wanted)
