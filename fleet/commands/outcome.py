"""The end of a command that made a run: its run directory, what is shown of it, the exit code."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from fleet.commands.common import EXIT_HARNESS, cut_short_at_will

if TYPE_CHECKING:
    from reports.result import RunResult


def keep(result: RunResult, directory: Path, trace: Iterable[bytes] | None = None) -> None:
    """Writes the run directory. `trace`: the events, one JSON object each."""
    from reports.rundir import RunDirError, write_run

    try:
        write_run(result, directory, trace)
    except RunDirError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_HARNESS) from None


def hint_of_missing() -> str:
    """What to install so that a report has its plots; empty when it is there. Imports none of it."""
    missing = [name for name in ("matplotlib", "pandas") if importlib.util.find_spec(name) is None]
    return f"plots need {' and '.join(missing)}: pip install 'fleet-sync[report]'" if missing else ""


def show(result: RunResult, directory: Path, *, as_json: bool, quiet: bool) -> None:
    """Shows the summary, the directory last, and exits with the verdict's code."""
    from reports.summary import exit_code

    tell(result, directory, as_json=as_json, quiet=quiet)
    raise typer.Exit(exit_code(result.summary))


def tell(result: RunResult, directory: Path, *, as_json: bool = False, quiet: bool = False) -> None:
    """Shows the summary, the directory last."""
    from reports.terminal import print_summary

    with cut_short_at_will():
        if as_json:
            typer.echo(json.dumps(json.loads(msgspec.json.encode(result.summary)), indent=2))
        elif not quiet:
            print_summary(result, sys.stdout)
            typer.echo(f"   report     {directory / 'report.html'}")
            if missing := hint_of_missing():
                typer.echo(f"   report.html is plain: {missing}", err=True)
        typer.echo(str(directory))
