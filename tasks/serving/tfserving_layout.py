"""TensorFlow Serving: ``<out>/<model>/<version>/saved_model.pb`` and what belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.artifact import ModelFormat
from tasks.serving.folders import Layout, below, place

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.serving.source import ReleaseSource


def lay_out_tfserving(release: ReleaseSource, out: Path) -> Layout:
    """Write a release's SavedModel to ``<out>/<model>/<version>``.

    Raises:
        ConfigurationError: The release has no SavedModel, or another thing stands there.
        DigestMismatchError: A file is not the one that the manifest names.
    """
    model, version = release.manifest.model, release.manifest.version
    placed = place(release, ModelFormat.SAVED_MODEL, out / model / str(version))
    gpu = release.manifest.recipe.device != "cpu"
    return Layout(
        server="tfserving",
        model=model,
        version=version,
        folder=out,
        files=below(f"{model}/{version}", placed),
        command=(
            f"docker run --rm {'--gpus=all ' if gpu else ''}-p 8500:8500 -p 8501:8501 "
            f"-v {(out / model).resolve()}:/models/{model}:ro -e MODEL_NAME={model} "
            f"tensorflow/serving{':latest-gpu' if gpu else ''}"
        ),
    )
