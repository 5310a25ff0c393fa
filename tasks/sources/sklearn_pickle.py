"""Fitted scikit-learn estimators that somebody else wrote to files."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from tasks.domain.errors import AcquisitionError, ConfigurationError
from tasks.domain.sources import SklearnPickle
from tasks.runners.sklearn_files import (
    Estimator,
    check_signature,
    is_skops,
    noting_warnings,
    read_joblib,
    read_skops,
    save_estimator,
)
from tasks.sources import AcquireReply, AcquireRequest


def acquire(request: AcquireRequest) -> AcquireReply:
    """Load the files in the recipe's order and chain them as one pipeline.

    A file written by another version of scikit-learn loads with a note: parity compares the
    export with what this version makes of it.

    Raises:
        ConfigurationError: A file is a pickle that the recipe does not trust, or the recipe's
            signature contradicts the model.
        AcquisitionError: A file does not load, or holds something that is no estimator.
    """
    recipe = request.recipe
    source = cast("SklearnPickle", recipe.source)
    uris = [each.uri for each in source.downloads]
    steps, notes = noting_warnings(
        lambda: [
            _load(recipe.name, source, uri, path)
            for uri, path in zip(uris, request.downloads, strict=True)
        ]
    )
    estimator = _chained(recipe.name, uris, steps)
    check_signature(recipe, estimator)
    save_estimator(estimator, request.folder, as_skops=all(map(is_skops, uris)))
    return AcquireReply(notes=notes)


def _load(model: str, source: SklearnPickle, uri: str, path: Path) -> Estimator:
    where = f"{model}: {uri.rpartition('/')[2]}"
    if is_skops(uri):
        return read_skops(path, trusted=source.trusted, where=where)
    if not source.trusted:
        message = (
            f"{where}: source.trusted: a pickle runs code when it is loaded. Say "
            "'trusted: true' if you know who wrote it, or use a skops file."
        )
        raise ConfigurationError(message)
    return read_joblib(path, where=where, fails_as=AcquisitionError)


def _chained(model: str, uris: list[str], steps: list[Estimator]) -> Estimator:
    from sklearn.pipeline import make_pipeline

    for position, (uri, step) in enumerate(zip(uris, steps, strict=True)):
        needed = ["predict", "transform"] if position == len(steps) - 1 else ["transform"]
        if not any(hasattr(step, method) for method in needed):
            message = (
                f"{model}: {uri.rpartition('/')[2]}: holds a {type(step).__name__} (expected a "
                f"fitted estimator that can {' or '.join(needed)}). Name the files in the order "
                "in which the data pass through them."
            )
            raise AcquisitionError(message)
    return steps[0] if len(steps) == 1 else make_pipeline(*steps)
