"""Where pip looks for packages on this machine: its own configuration, as pip reports it."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class PipSettings:
    """The settings of pip that say where a package comes from, and by which way."""

    indexes: tuple[str, ...] = ()
    """Addresses of simple indexes (PEP 503), the main one first."""
    find_links: tuple[str, ...] = ()
    """Folders, or pages of links."""
    ca_file: str | None = None
    proxy: str | None = None
    trusted_hosts: tuple[str, ...] = ()


@cache
def pip_settings() -> PipSettings:
    """Read pip's configuration files and environment variables, once in a process."""
    return read_pip_settings(os.environ)


def read_pip_settings(environment: os._Environ[str] | dict[str, str]) -> PipSettings:
    """Read pip's configuration as it is under ``environment``.

    ``pip config list`` merges its files; for ``pip download``, as for any command, variables
    overrule the command's own section, which overrules the global one. Where pip is not
    installed or does not answer, its variables alone are read.
    """
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    values: dict[str, str] = {}
    listed = _listed_by_pip(environment)
    for section in ("global", "download"):
        values |= listed.get(section, {})
    for name, value in environment.items():
        if name.startswith("PIP_"):
            values[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    main = (
        ()
        if _is_true(values.get("no-index"))
        else (values.get("index-url") or PYPI_SIMPLE_ENDPOINT,)
    )
    extra = tuple(values.get("extra-index-url", "").split()) if main else ()
    return PipSettings(
        indexes=main + extra,
        find_links=tuple(values.get("find-links", "").split()),
        ca_file=values.get("cert") or None,
        proxy=values.get("proxy") or None,
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
    )


def _listed_by_pip(environment: os._Environ[str] | dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the options in pip's configuration files, by section."""
    if find_spec("pip") is None:
        return {}
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    sections: dict[str, dict[str, str]] = {}
    for line in answer.stdout.splitlines():
        key, separator, value = line.partition("=")
        section, dot, name = key.rpartition(".")
        if separator and dot:
            sections.setdefault(section, {})[name] = _unquoted(value)
    return sections


def _unquoted(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return " ".join(shlex.split(value, posix=False))


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in {"1", "true", "yes", "on", "y", "t"}
