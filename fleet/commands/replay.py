"""`fleet replay`: runs a recorded plan again and says whether the trace is the same. Writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.common import EXIT_INPUT

ORDER = 15


def register(app: typer.Typer) -> None:
    app.command("replay")(replay)


def replay(
    run: Annotated[Path, typer.Argument(help="A run directory, or a plan.json.", metavar="RUN_DIR|PLAN")],
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the last line.")] = False,
) -> None:
    """Run a recorded plan again and compare the trace hash.

    Exits with 0 when it is the same, 1 when it differs (and shows the first event that does), 2 on bad input. For a
    plan without a run directory there is nothing to compare: the hash is printed.
    """
    from fleet.commands.progress import ProgressLine
    from fleet.run import replay as run_again
    from fleet.scenario.plan import Plan
    from reports.rundir import RunDirError, load_run, read_trace

    if run.is_dir():
        try:
            recorded = load_run(run)
        except RunDirError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(EXIT_INPUT) from None
        plan = Plan.decode(recorded.plan_json, str(run / "plan.json"))
        if recorded.summary.interrupted:
            typer.echo(f"{run}: interrupted: its trace ends where Ctrl-C came, not at the plan's end", err=True)
            raise typer.Exit(EXIT_INPUT)
        trace = read_trace(run) if (run / "trace.jsonl.gz").exists() else None
        with ProgressLine(quiet) as progress:
            trace_hash, difference = run_again(plan, recorded.summary.trace_hash, recorded.checkpoints, trace, progress)
        if difference is None:
            typer.echo(f"same trace hash: {trace_hash}")
            return
        typer.echo(f"trace hash differs: recorded {recorded.summary.trace_hash}, now {trace_hash}")
        typer.echo(f"first difference at {difference.at_us / 1e6:.6f} s, event {difference.event}")
        typer.echo(f"  recorded: {difference.recorded}")
        typer.echo(f"  now:      {difference.replayed}")
        raise typer.Exit(1)
    plan = Plan.load(run)
    with ProgressLine(quiet) as progress:
        trace_hash, _ = run_again(plan, "", [], None, progress)
    typer.echo(f"trace hash: {trace_hash}")
