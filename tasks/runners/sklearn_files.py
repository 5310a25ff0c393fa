"""Fitted scikit-learn estimators as files: how they are written, read, and fit a signature."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.domain.errors import AcquisitionError, ConfigurationError, VerificationError
from tasks.domain.sources import SklearnPickle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.domain.recipe import Recipe
    from tasks.domain.signature import InputSpec

Estimator: TypeAlias = Any
"""A fitted scikit-learn estimator or pipeline; scikit-learn has no types."""

_JOBLIB = "model.joblib"
_SKOPS = "model.skops"


def is_skops(uri: str) -> bool:
    """Tell whether a recipe counts this download as a skops file, which runs no code."""
    return ".skops" in uri


def save_estimator(estimator: Estimator, folder: Path, *, as_skops: bool = False) -> None:
    """Write a fitted estimator where ``load_estimator`` finds it."""
    if as_skops:
        import skops.io

        skops.io.dump(estimator, folder / _SKOPS)
    else:
        import joblib

        joblib.dump(estimator, folder / _JOBLIB)


def load_estimator(recipe: Recipe, folder: Path) -> Estimator:
    """Read the estimator that ``save_estimator`` wrote into ``folder``.

    Raises:
        ConfigurationError: It is a pickle of others, and the recipe does not trust it.
        VerificationError: No file is there, or it does not load.
    """
    source = recipe.source
    foreign = isinstance(source, SklearnPickle)
    trusted = not isinstance(source, SklearnPickle) or source.trusted
    if (path := folder / _SKOPS).is_file():
        return read_skops(path, trusted=foreign and trusted, where=recipe.name)
    path = folder / _JOBLIB
    if not path.is_file():
        message = (
            f"{recipe.name}: no scikit-learn model in its folder (expected {_JOBLIB} or "
            f"{_SKOPS}). Acquire the model anew."
        )
        raise VerificationError(message)
    if not trusted:
        message = (
            f"{recipe.name}: source.trusted: a pickle runs code when it is loaded. Say "
            "'trusted: true' if you know who wrote it, or use a skops file."
        )
        raise ConfigurationError(message)
    return read_joblib(path, where=recipe.name, fails_as=VerificationError)


def read_joblib(
    path: Path, *, where: str, fails_as: type[AcquisitionError | VerificationError]
) -> Estimator:
    """Load a pickle, which runs whatever code it holds: only for files that are trusted.

    Raises:
        AcquisitionError: It does not load (or what ``fails_as`` says).
    """
    import joblib

    try:
        return joblib.load(path)
    except ModuleNotFoundError as error:
        message = (
            f"{where}: the pickle needs the module '{error.name}', which is not installed. "
            "Use a model that is made of scikit-learn's own classes."
        )
        raise fails_as(message) from error
    except Exception as error:
        message = (
            f"{where}: {path.name} does not load as a pickle ({type(error).__name__}: "
            f"{str(error)[:300]}). Check that it is a joblib or pickle file, written by a "
            "scikit-learn of about this version."
        )
        raise fails_as(message) from error


def read_skops(path: Path, *, trusted: bool, where: str) -> Estimator:
    """Load a skops file, whose types are looked at before anything is built.

    Args:
        path: The file.
        trusted: Whether types that skops cannot vouch for are let through.
        where: The first words of an error.

    Raises:
        AcquisitionError: It does not load, or holds a type that skops cannot vouch for.
    """
    import skops.io

    try:
        unknown = skops.io.get_untrusted_types(file=path)
        estimator = skops.io.load(path, trusted=unknown) if trusted or not unknown else None
    except Exception as error:
        message = (
            f"{where}: {path.name} does not load as a skops file ({type(error).__name__}: "
            f"{str(error)[:300]}). Check that it was written by skops.io.dump."
        )
        raise AcquisitionError(message) from error
    if estimator is None:
        message = (
            f"{where}: the skops file holds types that skops cannot vouch for: "
            f"{', '.join(unknown[:5])}. Say 'trusted: true' if you know who wrote it."
        )
        raise AcquisitionError(message)
    return estimator


def noting_warnings(do: Callable[[], Any]) -> tuple[Any, tuple[str, ...]]:
    """Do something, and return what it returned with each different warning it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = do()
    kinds = (UserWarning, RuntimeWarning, FutureWarning)  # deprecations are for developers
    told = [f"{each.category.__name__}: {each.message}" for each in caught
            if issubclass(each.category, kinds)]  # fmt: skip
    return result, tuple(dict.fromkeys(" ".join(text.split())[:400] for text in told))


def last_step(estimator: Estimator) -> Estimator:
    """Return the estimator that gives a pipeline's answer."""
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator


def only_input(recipe: Recipe) -> InputSpec:
    """Return the recipe's single input, which holds all columns.

    Raises:
        ConfigurationError: There are several.
    """
    if len(recipe.signature.inputs) != 1:
        names = ", ".join(each.name for each in recipe.signature.inputs)
        message = (
            f"{recipe.name}: signature.inputs: a scikit-learn model takes one table (expected "
            f"1 input, got {names}). Declare one input of shape [batch, columns]."
        )
        raise ConfigurationError(message)
    return recipe.signature.inputs[0]


_METHODS = {
    "labels": ("predict",),
    "probabilities": ("predict_proba",),
    "logits": ("decision_function",),
    "values": ("predict", "transform"),
}


def method_for(recipe: Recipe, estimator: Estimator, output: str, role: str) -> str:
    """Return the name of the method that answers an output of this role.

    Raises:
        ConfigurationError: The estimator has none.
    """
    for name in _METHODS[role]:
        if hasattr(estimator, name):
            return name
    can = [each for each, names in _METHODS.items() if any(hasattr(estimator, n) for n in names)]
    message = (
        f"{recipe.name}: signature.outputs: '{output}' has the role '{role}', but "
        f"{type(last_step(estimator)).__name__} has no {' or '.join(_METHODS[role])} "
        f"(expected one of: {', '.join(can)}). Change the role."
    )
    raise ConfigurationError(message)


def check_signature(recipe: Recipe, estimator: Estimator) -> None:
    """Compare what the recipe declares with what the fitted estimator says of itself.

    Raises:
        ConfigurationError: They contradict each other.
    """
    spec = only_input(recipe)
    columns = spec.shape[1] if len(spec.shape) > 1 else None
    expected = getattr(estimator, "n_features_in_", None)
    if None not in (columns, expected) and columns != expected:
        message = (
            f"{recipe.name}: signature.inputs.{spec.name}: the model was trained on {expected} "
            f"columns (expected [batch, {expected}], got [{', '.join(map(str, spec.shape))}]). "
            "Change the shape."
        )
        raise ConfigurationError(message)
    classes = len(getattr(estimator, "classes_", ()))
    for output in recipe.signature.outputs:
        method_for(recipe, estimator, output.name, output.role)
        width = output.shape[1] if len(output.shape) > 1 else None
        if output.role == "probabilities" and classes and width != classes:
            message = (
                f"{recipe.name}: signature.outputs.{output.name}: the model knows {classes} "
                f"classes (expected [batch, {classes}], got "
                f"[{', '.join(map(str, output.shape))}]). Change the shape."
            )
            raise ConfigurationError(message)
