"""Keras model files: ``.keras``, or ``.h5`` of any Keras."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tasks.domain.errors import AcquisitionError, VerificationError
from tasks.runners.keras_runner import MODEL_FILE, check_signature, load_model
from tasks.sources import AcquireReply, AcquireRequest
from tasks.sources.keras_saving import save_model


def acquire(request: AcquireRequest) -> AcquireReply:
    """Load the downloaded file, with code inside it refused, and save it as ``model.keras``.

    Raises:
        AcquisitionError: Keras cannot load it.
        SignatureMismatchError: The model contradicts the recipe.
    """
    (path,) = request.downloads
    named = request.folder.with_name(f"{request.folder.name}-download{_suffix(path)}")
    named.unlink(missing_ok=True)
    named.symlink_to(path.resolve())
    try:
        model = load_model(named)
    except VerificationError as error:
        message = f"{request.recipe.name}: source.download: {error}"
        raise AcquisitionError(message) from error
    finally:
        named.unlink()
    check_signature(model, request.recipe)
    save_model(model, request.folder / MODEL_FILE)
    return AcquireReply(notes=(f"{model.count_params():,} parameters",))


def _suffix(path: Path) -> str:
    """Return the suffix of the file's real format, whatever it is called in the cache."""
    return ".keras" if zipfile.is_zipfile(path) else ".h5"
