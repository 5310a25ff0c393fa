"""The names of ImageNet's classes, for recipes that only say ``imagenet-1k``."""

from __future__ import annotations

from tasks.domain.value import Value


class LabelsRequest(Value):
    """Which names are asked for: there is one set."""


class LabelsReply(Value):
    """The names, by number of the class."""

    labels: tuple[str, ...]


def imagenet_labels(request: LabelsRequest) -> LabelsReply:  # noqa: ARG001 - a child's function has one
    """Return the names that torchvision's published weights carry."""
    import torch  # noqa: F401 - before torchvision, see tasks/sources/torchvision_models.py
    from torchvision.models import MobileNet_V2_Weights

    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    return LabelsReply(labels=tuple(" ".join(name.split()) for name in names))
