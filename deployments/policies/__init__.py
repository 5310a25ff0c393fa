"""What users of the store may do: policies in the language of AWS, which MinIO and others speak.

python -m deployments.policies worker --bucket models [--models 'vision-*' …] prints one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROLES = ("worker", "upkeep")
"""``worker`` releases, and moves aliases; ``upkeep`` also removes what nobody needs."""


def policy(role: str, bucket: str, models: Sequence[str] = ("*",)) -> dict[str, Any]:
    """Return the policy of a user.

    Args:
        role: One of ``ROLES``.
        bucket: The bucket of the releases.
        models: Names of the models that it may write, ``*`` in them for any characters.
    """
    document: dict[str, Any] = json.loads(Path(__file__).with_name(f"{role}.json").read_text())
    for statement in document["Statement"]:
        statement["Resource"] = [
            resource.replace("BUCKET", bucket).replace("MODELS", model)
            for resource in statement["Resource"]
            for model in (models if "MODELS" in resource else models[:1])
        ]
    return document
