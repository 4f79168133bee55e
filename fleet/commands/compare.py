"""`fleet compare`: two runs, or two groups of runs, metric by metric. Runs nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from agent.protocol.errors import InputError, Problem
from fleet.commands.common import EXIT_HARNESS, EXIT_INPUT, cut_short_at_will
from fleet.commands.outcome import hint_of_missing

ORDER = 19


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    base: Annotated[Path, typer.Argument(help="A run directory, or a directory of several.", metavar="BASE")],
    new: Annotated[Path, typer.Argument(help="What is compared with it.", metavar="NEW")],
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="EXPR",
            help="Fail when this is so: 'latency_s.up.p99 > +10%', 'converged_after_s > 2m'. Repeatable.",
        ),
    ] = None,
    across: Annotated[
        bool, typer.Option("--across", help="Compare also different scenarios, numbers of devices or durations.")
    ] = False,
    all_rows: Annotated[bool, typer.Option("--all", help="Show every metric, also those that did not change.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with the timelines over each other.")
    ] = None,
    table: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the metrics as CSV.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two runs, or two groups of runs of several seeds, and say whether NEW is worse than BASE.

    With at least three runs on a side, the runs tell how much is noise, and what is worse than that is a regression.
    Without, changes are shown, and only --fail-on and runs that failed decide. Times are virtual: it does not matter on
    which machine a run was made.

    Exits with 0 passed, 1 regression, 2 bad input or runs that do not compare, 3 no baseline, or a rule that had
    nothing to look at."""
    from fleet.compare_rules import parse_rule
    from reports.compare import compare as compared
    from reports.compare_html import comparison_html
    from reports.compare_runs import differences, load_group
    from reports.compare_text import comparison_csv, print_comparison
    from reports.rundir import RunDirError

    rules = [parse_rule(text) for text in fail_on or []]
    problems = [one for one in rules if isinstance(one, Problem)]
    if problems:
        raise InputError(problems)
    try:
        one, other = load_group(base), load_group(new)
    except RunDirError as error:
        _refuse(str(error))
    if not other.runs:
        _refuse("\n".join([*other.notes, f"{new}: no run to compare"]))
    unlike = differences(one, other) if one.runs else []
    result = compared(one, other, [rule for rule in rules if not isinstance(rule, Problem)], unlike, across=across)
    if html is not None:
        _write(html, comparison_html(result, one.whole, other.whole))
        if result.rows and (missing := hint_of_missing()):
            typer.echo(f"{html} is plain: {missing}", err=True)
    if table is not None:
        _write(table, comparison_csv(result))
    with cut_short_at_will():
        if as_json:
            typer.echo(json.dumps(json.loads(msgspec.json.encode(result)), indent=2))
        else:
            print_comparison(result, sys.stdout, all_rows=all_rows)
    raise typer.Exit(result.exit_code)


def _refuse(message: str) -> NoReturn:
    typer.echo(message.encode("utf-8", "backslashreplace").decode(), err=True)
    raise typer.Exit(EXIT_INPUT)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        typer.echo(f"{path}: cannot be written: {reason}", err=True)
        raise typer.Exit(EXIT_HARNESS) from None
