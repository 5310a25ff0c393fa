"""KServe: an ``InferenceService`` whose storage URI is a layout in the bucket.

KServe copies what the URI names to ``/mnt/models`` and starts Triton with that as its model
repository, or TensorFlow Serving with that as the model's folder; so the URI names

    s3://<bucket>/serving/triton/<model>/<version>/<model>/{config.pbtxt,<version>/…}
    s3://<bucket>/serving/tfserving/<model>/<version>/<version>/saved_model.pb

Source: KServe's pages on the Triton and TensorFlow runtimes and on S3 credentials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import yaml

from tasks.serving.folders import Layout, write_document
from tasks.storage.places import SERVING

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.domain.release import Manifest
    from tasks.storage.store import ObjectStore

SERVICE_ACCOUNT = "conveyor-models"
"""The Kubernetes service account whose secret has the bucket's endpoint and keys."""

KserveRuntime = Literal["triton", "tfserving"]
_FORMATS = {"triton": ("triton", "kserve-tritonserver"),
            "tfserving": ("tensorflow", "kserve-tensorflow-serving")}  # fmt: skip
_LONGEST_NAME = 63


def upload(layout: Layout, store: ObjectStore) -> str:
    """Put a layout into the bucket and read it back; return its URI.

    Keys are written once: a second upload of the same layout changes nothing.

    Raises:
        DigestMismatchError: Another layout of this version stands there, or the store returned
            other bytes than it was given.
        StorageError: The store refused.
    """
    prefix = f"{SERVING}/{layout.server}/{layout.model}/{layout.version}"
    inside = f"{layout.model}/" if layout.server == "tfserving" else ""
    for file in layout.files:
        key = f"{prefix}/{file.path.removeprefix(inside)}"
        store.check(store.put(layout.folder / file.path, key))
    return store.url(prefix)


def inference_service(
    manifest: Manifest, runtime: KserveRuntime, uri: str, service_account: str = SERVICE_ACCOUNT
) -> dict[str, Any]:
    """Return the ``InferenceService`` for one release.

    Args:
        manifest: Of the release.
        runtime: Which server KServe starts.
        uri: What it serves, such as ``s3://models/serving/triton/digits-cnn/3``.
        service_account: Whose secret opens the bucket.
    """
    name, server = _FORMATS[runtime]
    gpu = manifest.recipe.device != "cpu"
    model: dict[str, Any] = {
        "modelFormat": {"name": name},
        "runtime": server,
        "storageUri": uri,
    }
    if runtime == "triton":
        model["protocolVersion"] = "v2"
    if gpu:
        model["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": _name_of(manifest.model),
            "labels": {"onnx-conveyor/version": str(manifest.version)},
            "annotations": {"onnx-conveyor/source-sha256": manifest.source_sha256},
        },
        "spec": {"predictor": {"serviceAccountName": service_account, "model": model}},
    }


def _name_of(model: str) -> str:
    """Return a name that KServe takes: it begins with a letter."""
    return model if model[0].isalpha() else f"m-{model}"[:_LONGEST_NAME].rstrip("-")


def lay_out_kserve(
    manifest: Manifest, runtime: KserveRuntime, uri: str, out: Path, service_account: str
) -> Layout:
    """Write ``<out>/<model>-<version>.yaml``.

    Raises:
        ConfigurationError: Another text stands there.
    """
    path = out / f"{manifest.model}-{manifest.version}.yaml"
    service = inference_service(manifest, runtime, uri, service_account)
    file = write_document(path, yaml.safe_dump(service, sort_keys=False))
    return Layout(
        server="kserve",
        model=manifest.model,
        version=manifest.version,
        folder=out,
        files=(file,),
        uri=uri,
        command=f"kubectl apply -f {path.resolve()}",
    )
