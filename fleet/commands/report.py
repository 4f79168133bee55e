"""`fleet report`: builds again what people read of a run, from its run directory alone; plots as PNG when asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.common import EXIT_HARNESS, EXIT_INPUT
from fleet.commands.outcome import hint_of_missing, tell

ORDER = 18


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    run: Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN_DIR")],
    png: Annotated[
        Path | None, typer.Option("--png", metavar="DIR", help="Write each plot as a PNG into this directory, too.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the last line.")] = False,
) -> None:
    """Build report.html, junit.xml, timeline.csv and devices.csv of a run again, byte for byte as the run wrote them.

    Shows the run's summary; the last line on stdout is the run directory. Exits with 0 whatever the run's verdict was,
    2 on bad input, 4 when something cannot be written."""
    from reports.rundir import RunDirError, write_pngs, write_report

    if png is not None and (missing := hint_of_missing()):
        typer.echo(f"--png: {missing}", err=True)
        raise typer.Exit(EXIT_INPUT)
    try:
        result = write_report(run)
        if png is not None:
            write_pngs(result, png)
    except RunDirError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code if error.exit_code == EXIT_INPUT else EXIT_HARNESS) from None
    tell(result, run, quiet=quiet)
