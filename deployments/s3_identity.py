"""What a local S3 server keeps from one start to the next: its ports, its users, their secrets."""

from __future__ import annotations

import json
import secrets
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pydantic import ValidationError

from deployments.policies import policy
from tasks.domain.value import Value

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "127.0.0.1"
SERVICES = ("master", "volume", "filer", "s3", "admin")


class Identity(Value):
    """What a server keeps from one start to the next, in ``server.json`` of its folder."""

    access_key_id: str
    secret_access_key: str
    worker_key_id: str = ""
    worker_secret: str = ""
    ports: dict[str, int]


def identity_in(path: Path) -> Identity:
    """Read the server's identity; make one at the first start, new ports where one is taken."""
    try:
        identity = Identity.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        identity = Identity(
            access_key_id=f"local{secrets.token_hex(6)}",
            secret_access_key=secrets.token_urlsafe(30),
            ports={},
        )
    if not identity.worker_key_id:  # also of a server that is older than its worker
        identity = identity.model_copy(
            update={
                "worker_key_id": f"worker{secrets.token_hex(6)}",
                "worker_secret": secrets.token_urlsafe(30),
            }
        )
        write_private(path, identity.model_dump())
    if not identity.ports or not all(map(_is_free, identity.ports.values())):
        identity = identity.model_copy(update={"ports": _free_ports()})
        write_private(path, identity.model_dump())
    return identity


def _free_ports() -> dict[str, int]:
    names = [*SERVICES, *(f"{name}.grpc" for name in SERVICES)]
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}


def _is_free(port: int) -> bool:
    with socket.socket() as each:
        # as the server itself does; connections of the last run may still be in TIME_WAIT
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            each.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def access(identity: Identity, bucket: str) -> dict[str, object]:
    """Return who may do what: an owner, and a worker with the policy that is shipped."""
    owner = {"accessKey": identity.access_key_id, "secretKey": identity.secret_access_key}
    worker = {"accessKey": identity.worker_key_id, "secretKey": identity.worker_secret}
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    return {
        "identities": [
            {"name": "local", "credentials": [owner], "actions": actions},
            {"name": "worker", "credentials": [worker], "policyNames": ["worker"]},
        ],
        "policies": [{"name": "worker", "content": json.dumps(policy("worker", bucket))}],
    }


def write_private(path: Path, content: object) -> None:
    """Write a document that only its owner can read."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(json.dumps(content, indent=2))
