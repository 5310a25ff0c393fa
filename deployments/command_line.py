"""The command line ``conveyor``: versions, aliases and upkeep, from a shell.

Settings are those of the environment (``CONVEYOR_STORE_…``). With ``--json``, one document
goes to standard output and nothing else. An error is one line on standard error. Exit codes:
0 done; 1 it failed, or something is wrong; 2 it was called wrongly.

To add commands, write a module with ``register(commands)`` beside the others, and add it to
``REGISTER``. What takes long to import is imported inside the function that runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from pydantic import ValidationError

from deployments.commands import releases, upkeep
from deployments.commands.answering import Answer, Commands
from tasks.domain.errors import ReleaseError
from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REGISTER: tuple[Callable[[Commands], None], ...] = (releases.register, upkeep.register)
"""What adds each module's commands, in the order of the help page."""

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        answer: Answer = options.run(options)
    except ReleaseError as error:
        return _fail(str(error))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return _fail(f"{'.'.join(map(str, first['loc']))}: {first['msg']}. Check the settings.")
    except KeyboardInterrupt:
        _fail("interrupted")
        return _INTERRUPTED
    try:
        sys.stdout.write(f"{_as_json(answer) if options.json else answer.text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # who read it has read enough; Python would complain when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if answer.succeeded else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="conveyor", description="Look after what is released.")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands = Commands(parsers)
    for register in REGISTER:
        register(commands)
    return parser


def _as_json(answer: Answer) -> str:
    document = answer.document
    if isinstance(document, Value):
        document = document.model_dump(mode="json")
    return json.dumps(document, indent=2)


def _fail(words: str) -> int:
    sys.stderr.write(f"conveyor: {' '.join(words.split())}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
