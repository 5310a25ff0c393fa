"""Secrets from files: ``python -m deployments.secret_files COMMAND`` runs COMMAND with them.

Where a variable ``PREFECT_…`` or ``CONVEYOR_…`` has ``{NAME}`` in it, the file ``NAME`` of the
folder of secrets stands for it; in a URL, its characters are quoted. So the secrets of a
container are in no compose file, no manifest, and in nothing that ``docker inspect`` shows.

    python3 deployments/secret_files.py make .secrets

makes the files that ``docker-compose.yml`` asks for, and leaves those that are there. Only the
standard library, since it also runs where nothing is installed yet.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "/run/secrets"
"""Where Compose and the manifests for Kubernetes lay them."""

_OURS = ("PREFECT_", "CONVEYOR_")
_NAME = re.compile(r"\{([A-Z][A-Z0-9_]*)\}")
_WRONG = 2


class SecretError(Exception):
    """A secret is asked for that is not there; the message says which, where and what next."""


def filled_in(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return ``environment`` with each ``{NAME}`` replaced by the secret.

    Args:
        environment: The variables; those of others than Prefect and us stay as they are.
        folder: Of the secrets, one file each, a line break at its end not counted.

    Raises:
        SecretError: A file is missing, or empty.
    """
    return {
        name: _fill(name, text, folder) if name.startswith(_OURS) else text
        for name, text in environment.items()
    }


def make(folder: Path) -> list[str]:
    """Make the secrets that are missing; return their names.

    The folder is its owner's alone; the files can be read by whoever gets at them, since the
    user in a container is not the one who made them.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    wanted = {
        "POSTGRES_PASSWORD": secrets.token_urlsafe(30),
        "REDIS_PASSWORD": secrets.token_urlsafe(30),
        "SERVER_AUTH": f"conveyor:{secrets.token_urlsafe(30)}",
        # MinIO takes names of 3 to 20 characters, and secrets of 8 to 40
        "S3_ROOT_KEY_ID": f"conveyor{secrets.token_hex(6)}",
        "S3_ROOT_SECRET": secrets.token_urlsafe(30),
        "S3_WORKER_KEY_ID": f"worker{secrets.token_hex(6)}",
        "S3_WORKER_SECRET": secrets.token_urlsafe(30),
    }
    return [name for name, value in wanted.items() if _create(folder / name, value)]


def main(arguments: list[str]) -> int:
    """Make secrets, or become the command that gets them."""
    if arguments[:1] == ["make"] and len(arguments) == len(["make", "FOLDER"]):
        made = make(Path(arguments[1]))
        sys.stdout.write(f"{arguments[1]}: made {', '.join(made) or 'nothing, all are there'}\n")
        return 0
    if not arguments:
        sys.stderr.write("secret_files: expected a command to run, or: make FOLDER\n")
        return _WRONG
    folder = Path(os.environ.get("CONVEYOR_SECRETS", FOLDER))
    try:
        environment = filled_in(os.environ, folder)
    except SecretError as error:
        sys.stderr.write(f"{error}\n")
    else:
        os.execvpe(arguments[0], arguments, environment)  # noqa: S606 - to run it is its purpose
    return 1


def _fill(variable: str, text: str, folder: Path) -> str:
    def secret(match: re.Match[str]) -> str:
        file = folder / match[1]
        try:
            value = file.read_text().rstrip("\r\n")
        except OSError as error:
            message = f"{variable}: the secret {file} cannot be read ({error.strerror})."
            raise SecretError(f"{message} Make it, or set the variable itself.") from error
        if not value:
            raise SecretError(f"{variable}: the secret {file} is empty. Fill it in.")
        return quote(value, safe="") if "://" in text else value

    return _NAME.sub(secret, text)


def _create(file: Path, value: str) -> bool:
    try:
        with file.open("x") as new:
            new.write(value)
    except FileExistsError:
        return False
    file.chmod(0o444)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
