"""``make demo``: the whole conveyor on this machine, and four real models through it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from deployments.local import ROOT, LocalStack
from deployments.processes import StackError
from deployments.runs import DEPLOYMENT, ModelRun, run_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MODELS = ("iris-random-forest", "mobilenet-v2", "dog-breeds", "basic-pitch")

_PORT = 4200
"""Prefect's usual one, so that the UI is where people look for it, if it is free."""
_PIPE_WIDTH = 110
_TICK_SECONDS = 0.5
_STYLES = {"released": "green", "up to date": "green", "failed": "bold red", "waits": "dim"}


class _StoppedError(BaseException):
    """A signal asked the demo to end.

    Not ``KeyboardInterrupt``: where that passes through an ``exec`` of a string, as in the
    making of a dataclass, Python ends by SIGINT even if it was caught (seen on 3.11).
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the stack, run the catalogue (unless ``--up``); return the exit code."""
    options = _options(arguments)
    _end_as_usual_on_signals()
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    try:
        return _show(console, options)
    except StackError as error:
        console.print("[bold red]The local stack failed.[/]", end=" ")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    except _StoppedError:
        console.print("Stopped; nothing is left running.")
        return 130


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deployments.demo", description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS), help="names of recipes")
    parser.add_argument("--up", action="store_true", help="run no model; stay until Ctrl-C")
    keep = os.environ.get("KEEP", "") not in {"", "0"}
    parser.add_argument(
        "--keep", action="store_true", default=keep, help="stay until Ctrl-C (or set KEEP=1)"
    )
    parser.add_argument("--at-once", type=int, default=2, help="models at the same time")
    parser.add_argument("--folder", type=Path, default=ROOT / ".conveyor", help="of its files")
    return parser.parse_args(arguments)


def _end_as_usual_on_signals() -> None:
    """Let SIGTERM and Ctrl-C unwind the stack, even where a shell had them ignored."""

    def stop(*_: object) -> None:
        raise _StoppedError

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def _show(console: Console, options: argparse.Namespace) -> int:
    began = time.monotonic()
    with contextlib.ExitStack() as until_here:
        with console.status("starting …") as status:
            stack = LocalStack(
                options.folder,
                at_once=options.at_once,
                port=_PORT,
                whole=options.up,
                say=lambda text: status.update(f"{text} …"),
            )
            until_here.enter_context(stack)
        console.print(f"Up after {time.monotonic() - began:.0f} s.")
        _print_addresses(console, stack)
        failed: list[ModelRun] = []
        if not options.up:
            failed = _run_catalogue(console, stack, options)
        if options.up or options.keep:
            _stay(console, stack)
        else:
            console.print("Stopping. To look around in it: make demo KEEP=1, or: make up")
    return 1 if failed else 0


def _print_addresses(console: Console, stack: LocalStack) -> None:
    console.print(f"  Prefect UI      {stack.ui_url}", highlight=False)
    console.print(f"  bucket browser  {stack.browser_url or '(none)'}", highlight=False)
    if stack.credentials:
        words = f"asks for {':'.join(stack.credentials)}"
        console.print(f"  its API         {words}", highlight=False)
    console.print(f"  it stands on    {stack.backing.words}", highlight=False, markup=False)


def _run_catalogue(
    console: Console, stack: LocalStack, options: argparse.Namespace
) -> list[ModelRun]:
    """Run the models, show where they are, print the table; return those that failed."""
    # here, since it costs the first screen half a second
    from deployments.summary import reason, summary

    runs: list[ModelRun] = []
    console.print(f"Each model: prefect deployment run '{DEPLOYMENT}' -p model=… --watch")
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            for runs in run_all(stack, options.models, options.at_once):
                live.update(_progress(runs), refresh=True)
    else:
        said: dict[str, str] = {}
        began = time.monotonic()
        for runs in run_all(stack, options.models, options.at_once):
            for line in _changes(runs, said):
                console.print(f"{time.monotonic() - began:4.0f} s  {line}", highlight=False)
    console.print(summary(stack, runs))
    failed = [run for run in runs if not run.released]
    for run in failed:
        console.print(f"[bold red]{run.model} failed:[/]", end=" ")
        console.print(reason(run), markup=False, highlight=False, soft_wrap=True)
    _print_addresses(console, stack)
    return failed


def _progress(runs: list[ModelRun]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("model", "stages done", "seconds", "now"):
        table.add_column(
            column, justify="right" if column in {"stages done", "seconds"} else "left"
        )
    for run in runs:
        style = _STYLES.get(run.stage, "")
        table.add_row(run.model, str(run.stages), f"{run.seconds:.0f}", run.stage, style=style)
    return table


def _changes(runs: list[ModelRun], said: dict[str, str]) -> Iterator[str]:
    """Yield what is new since the last time, and remember that it was said."""
    for run in runs:
        if said.get(run.model, "waits") != run.stage:
            said[run.model] = run.stage
            yield f"{run.model}: {run.stage}"


def _stay(console: Console, stack: LocalStack) -> None:
    console.print("\nIt stays up until Ctrl-C. In another shell:")
    console.print(f"  source {stack.folder / 'env'}", highlight=False, soft_wrap=True)
    for command in (
        f"prefect deployment run '{DEPLOYMENT}' -p model=iris-random-forest --watch",
        "prefect deployment run 'release-catalog/default'",
        f"aws s3 ls --recursive {stack.bucket_url}",
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)
    try:
        while True:
            stack.raise_if_broken()
            time.sleep(_TICK_SECONDS)
    except _StoppedError:
        console.print("Stopping.")


if __name__ == "__main__":
    sys.exit(main())
