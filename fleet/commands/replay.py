"""`fleet replay`: runs a recorded plan again and says whether the trace is the same. Writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet.commands.common import EXIT_INPUT, EXIT_INTERRUPTED
from fleet.native.start import prepare

if TYPE_CHECKING:
    from fleet.run import Difference

ORDER = 15


def register(app: typer.Typer) -> None:
    app.command("replay")(replay)


def replay(
    run: Annotated[Path, typer.Argument(help="A run directory, or a plan.json.", metavar="RUN_DIR|PLAN")],
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Run a recorded plan again and compare the trace hash.

    Exits with 0 when it is the same, 1 when it differs (and shows the first event that does, or the block of events in
    which it lies when the run wrote no trace), 2 on bad input. For a plan without a run directory there is nothing to
    compare, nor for a live run: the hash is printed. An interrupted run is compared up to where it was.
    """
    prepare()
    from fleet.commands.interrupt import interruptible
    from fleet.commands.progress import ProgressLine
    from fleet.run import Interrupted, Record
    from fleet.run import replay as run_again
    from fleet.scenario.plan import Plan
    from reports.rundir import RunDirError, load_run, read_trace

    record = None
    try:
        if run.is_dir():
            recorded = load_run(run)
            summary = recorded.summary
            plan = Plan.decode(recorded.plan_json, str(run / "plan.json"))
            trace = read_trace(run) if (run / "trace.jsonl.gz").exists() else None
            until_us = round(summary.virtual_s * 1e6) if summary.interrupted else None
            if summary.trace_hash:  # a live run has none: there is nothing to compare
                record = Record(summary.trace_hash, recorded.checkpoints, trace, until_us)
        else:
            plan = Plan.load(run)
        with interruptible() as interrupt, ProgressLine(quiet) as progress:
            trace_hash, difference = run_again(plan, record, progress, lambda: interrupt.asked)
    except RunDirError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_INPUT) from None
    except Interrupted:
        typer.echo("interrupted: nothing was compared", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if record is None:
        typer.echo(f"trace hash: {trace_hash}")
    elif difference is None:
        typer.echo(f"same trace hash: {trace_hash}")
    else:
        typer.echo(f"trace hash differs: recorded {record.trace_hash}, now {trace_hash}")
        _explain(difference)
        raise typer.Exit(1)


def _explain(difference: Difference) -> None:
    at_s = difference.at_us / 1e6
    if difference.first_event == difference.last_event:
        typer.echo(f"first difference: event {difference.first_event}, at {at_s:.6f} s")
    else:
        events = f"events {difference.first_event} to {difference.last_event}"
        typer.echo(f"first difference: among {events}, up to {at_s:.6f} s (a run with --trace tells which)")
    typer.echo(f"  recorded: {difference.recorded}")
    typer.echo(f"  now:      {difference.replayed}")
